// The door of claude-peers in OpenCode.
