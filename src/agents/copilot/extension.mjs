// The door of claude-peers in Copilot CLI.
