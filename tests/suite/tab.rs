//! TAB in real shells: commands and options, and the peers and messages of a broker that runs.

use crate::support::{Broker, events::Peer, eventually, folder, terminal::Terminal};
use serde_json::json;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

const CLI: &str = env!("CARGO_BIN_EXE_claude-peers");
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Two peers, and a message whose text would harm a shell that reads it as more than text.
struct Scene {
    broker: Broker,
    /// The full id of the message.
    message: String,
}

impl Scene {
    fn new() -> Self {
        let broker = Broker::start();
        let [web, _] = ["shop-web", "shop-api"].map(|name| {
            let git =
                json!({"commonDir": format!("/{name}/.git"), "head": format!("/{name}/HEAD"), "repo": name, "branch": "main"});
            Peer::register(&broker.http(), name, json!({"cwd": format!("/{name}"), "git": git}))
        });
        let text = "$(touch broken) `touch broken`: %F{red}\n* \u{1b}[31m ".repeat(9);
        let sent = web.over(&broker.http()).post("/v1/send", &json!({"to": "shop-api", "text": text})).json();
        let message = sent["messageId"].as_str().unwrap().to_owned();
        Self { broker, message }
    }

    /// A folder with the script of each shell.
    fn scripts(&self) -> tempfile::TempDir {
        let place = folder();
        for shell in SHELLS {
            let name = if shell == "zsh" { "_claude-peers".to_owned() } else { format!("claude-peers.{shell}") };
            fs::write(place.path().join(name), self.broker.cli(&["completions", shell]).output().unwrap().stdout).unwrap();
        }
        place
    }

    /// A shell whose PATH has our programs. It runs in `place`.
    fn shell(&self, program: &str, place: &Path) -> Command {
        let mut command = Command::new(program);
        let cli = self.broker.cli(&[]);
        command.env_clear().envs(cli.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", path()).current_dir(place).stdin(Stdio::null());
        command
    }

    /// What bash offers for the last word of a line.
    fn bash(&self, words: &str) -> Vec<String> {
        let place = self.scripts();
        let ask = format!(
            "source claude-peers.bash; [[ $(complete -p claude-peers) =~ -F\\ ([^ ]+) ]]; COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); now=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}; \
             ${{BASH_REMATCH[1]}} claude-peers \"$now\" \"$before\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        lines(self.shell("bash", place.path()).args(["--norc", "-c", &ask]))
    }
}

/// The PATH with our programs first.
fn path() -> String {
    format!("{}:/usr/local/bin:/usr/bin:/bin", Path::new(CLI).parent().unwrap().display())
}

/// The lines that a command prints. It must print nothing on standard error.
#[track_caller]
fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{command:?}");
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Whether a shell is there. Where all tools are required, it has to be.
fn has(shell: &str) -> bool {
    let there = Command::new(shell).arg("--version").output().is_ok();
    assert!(there || std::env::var_os("CLAUDE_PEERS_HOST_TESTS").is_none_or(|value| value != "required"), "{shell} is missing");
    if !there {
        eprintln!("SKIPPED: there is no {shell}");
    }
    there
}

#[test]
fn bash_completes_commands_and_options() {
    let scene = Scene::new();
    let starting = ["status", "send", "search", "start", "stop", "setup"];
    assert_eq!(scene.bash("claude-peers s"), starting, "and not `summarize`, which is hidden");
    assert_eq!(scene.bash("claude-peers history --p"), ["--peer"]);
    assert_eq!(scene.bash("claude-peers completions b"), ["bash"]);
}

#[test]
fn bash_completes_peers_and_messages() {
    let scene = Scene::new();
    for (words, offered) in [
        ("claude-peers send shop-", &["shop-api", "shop-web"][..]),
        ("claude-peers send @", &["@repo", "@directory", "@machine"]),
        ("claude-peers ask ''", &["shop-api", "shop-web"]),
        ("claude-peers history --peer shop-w", &["shop-web"]),
        ("claude-peers search x --peer=cl", &["--peer=cli"]),
        ("claude-peers message m", &["m1"]),
        ("claude-peers message m1-", &[&scene.message]),
        ("claude-peers send shop-api x --reply-to ''", &["m1"]),
        ("claude-peers release ''", &[]),
    ] {
        let fits = |word: &String| !["--json", "--help", "-h"].contains(&word.as_str());
        eventually(words, || scene.bash(words).into_iter().filter(fits).eq(offered.iter().copied()).then_some(()));
    }
}

#[test]
fn fish_completes_peers_and_messages() {
    if !has("fish") {
        return;
    }
    let (scene, place) = (Scene::new(), folder());
    let scripts = scene.scripts();
    let offered = |line: &str| {
        let ask = format!("source {}/claude-peers.fish; complete -C '{line}'", scripts.path().display());
        lines(scene.shell("fish", place.path()).env("XDG_CONFIG_HOME", place.path()).args(["--no-config", "-c", &ask]))
    };
    assert_eq!(offered("claude-peers histo").len(), 1);
    eventually("TAB offers peers", || {
        (offered("claude-peers ask shop-") == ["shop-api\t/shop-api", "shop-web\t/shop-web"]).then_some(())
    });
    let messages = eventually("TAB offers messages", || Some(offered("claude-peers message m")).filter(|all| !all.is_empty()));
    let [message] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(message, "m1\tshop-web → shop-api: $(touch broken) `touch broken`: %F{red}…");
    assert!(!place.path().join("broken").exists());
}

/// The script as a package installs it: zsh loads it at the first TAB, which has to complete already.
#[test]
fn zsh_completes_peers_and_messages() {
    if !has("zsh") {
        return;
    }
    let (scene, place) = (Scene::new(), folder());
    let scripts = scene.scripts();
    let rc = format!(
        "PS1='ready> '; cd {}; fpath=({} $fpath); autoload -Uz compinit; compinit -u -D",
        place.path().display(),
        scripts.path().display()
    );
    fs::write(place.path().join(".zshrc"), rc).unwrap();
    let env = [("PATH", &*path()), ("ZDOTDIR", place.path().to_str().unwrap()), ("HOME", place.path().to_str().unwrap())];
    let Some(terminal) = Terminal::run(&scene.broker, "zsh -d -i", (100, 20), &env) else { return };
    terminal.shows("ready>");
    terminal.types("claude-peers send shop-a");
    terminal.keys(&["Tab"]);
    terminal.shows("send shop-api");
    terminal.keys(&["C-u"]);
    terminal.types("claude-peers message m");
    terminal.keys(&["Tab"]);
    terminal.shows("message m1");
    terminal.keys(&["C-u"]);
    terminal.types("claude-peers ask shop-");
    terminal.keys(&["Tab", "Tab"]);
    let screen = terminal.shows("/shop-web");
    assert!(screen.contains("shop-api  -- /shop-api"), "{screen}");
    assert!(!place.path().join("broken").exists());
}

#[test]
fn tab_is_silent_without_a_broker() {
    let (scene, place) = (Scene::new(), folder());
    for shell in SHELLS {
        for socket in [place.path().join("none.sock").to_str().unwrap(), "relative"] {
            let mut ask = scene.shell("claude-peers", place.path());
            ask.env("_CLAUDE_PEERS_COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", "2").env("CLAUDE_PEERS_SOCKET", socket);
            let offered = lines(ask.args(["--", "claude-peers", "ask", ""]));
            assert!(offered.iter().any(|line| line.starts_with("--help")), "{shell}: {offered:?}");
        }
    }
    assert!(!place.path().join("none.sock").exists());
    let mut wrong = scene.shell("claude-peers", place.path());
    let output = wrong.env("_CLAUDE_PEERS_COMPLETE", "tcsh").args(["--", "claude-peers", ""]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(1), 0, 0), "{output:?}");
    assert_eq!(scene.broker.cli(&["completions", "tcsh"]).output().unwrap().status.code(), Some(2));
}
