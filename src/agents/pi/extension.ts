// The door of claude-peers in Pi.
