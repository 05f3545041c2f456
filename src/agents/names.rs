//! The programs of the agents: setup finds them by these names, and the MCP server recognises its client by them. And the name of that server.

/// The name under which our MCP server is registered. Claude Code's channel flag must say the same, and Codex's door asks for it.
pub const SERVER: &str = "claude-peers";

#[derive(Debug, Clone, Copy)]
pub struct Name {
    /// The program, which is also the word for the agent on our command line.
    pub program: &'static str,
    /// Part of the path of its script, if a JavaScript runtime runs it.
    pub package: &'static str,
}

pub const NOBODY: Name = Name { program: "", package: "" };
pub const CLAUDE: Name = Name { program: "claude", package: "claude-code" };
pub const CLINE: Name = Name { program: "cline", package: "@cline/cli" };
pub const CODEX: Name = Name { program: "codex", package: "@openai/codex" };
pub const COPILOT: Name = Name { program: "copilot", package: "@github/copilot" };
pub const GEMINI: Name = Name { program: "gemini", package: "gemini-cli" };
pub const GOOSE: Name = Name { program: "goose", package: "@aaif/goose" };
pub const OPENCODE: Name = Name { program: "opencode", package: "opencode-ai" };
pub const PI: Name = Name { program: "pi", package: "pi-coding-agent" };
pub const QWEN: Name = Name { program: "qwen", package: "qwen-code" };
