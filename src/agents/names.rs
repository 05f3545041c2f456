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

pub const NOBODY: Name = name("", "");
pub const CLAUDE: Name = name("claude", "claude-code");
pub const CLINE: Name = name("cline", "@cline/cli");
pub const CODEX: Name = name("codex", "@openai/codex");
pub const COPILOT: Name = name("copilot", "@github/copilot");
pub const GEMINI: Name = name("gemini", "gemini-cli");
pub const GOOSE: Name = name("goose", "@aaif/goose");
pub const OPENCODE: Name = name("opencode", "opencode-ai");
pub const PI: Name = name("pi", "pi-coding-agent");
pub const QWEN: Name = name("qwen", "qwen-code");

const fn name(program: &'static str, package: &'static str) -> Name {
    Name { program, package }
}
