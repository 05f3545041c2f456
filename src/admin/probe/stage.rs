//! A temporary directory for a trial, with a private broker. Its environment hides the user's own broker, sessions, keys and git
//! configuration.

use crate::{
    admin::place::{PROGRAMS, this_program},
    client::Client,
    console::Failure,
    platform::retry::Retry,
    wire::{Done, Hello},
};
use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

pub const PATIENCE: Duration = Duration::from_secs(10);
const START: Retry = Retry { pause: (Duration::from_millis(2), Duration::from_millis(50)), patience: PATIENCE };

/// Prefixes of variables that would tie a program to its surroundings.
const SURROUNDINGS: &str = "CLAUDE OPENAI_ GIT_ NOTIFY_SOCKET LISTEN_ WATCHDOG_ JOURNAL_STREAM INVOCATION_ID RUST_LOG DBUS_ \
                            XDG_RUNTIME_DIR";
const LOG_TAIL: usize = 15;

/// Dropping it removes its directory.
pub struct Stage {
    dir: TempDir,
    root: PathBuf,
    programs: PathBuf,
    /// The broker's, which may run elsewhere.
    pub socket: PathBuf,
}

impl Stage {
    /// `trial` becomes part of the directory's name.
    pub fn new(trial: &str) -> Result<Self, Failure> {
        let me = this_program()?;
        let programs = me.parent().unwrap_or(Path::new("/")).to_owned();
        if let Some(program) = PROGRAMS.iter().find(|program| !programs.join(program).is_file()) {
            let what = format!("claude-peers needs {program} beside {}, and it is not there", me.display());
            let help = "install all three programs together (`cargo install --path .`), or build them with `cargo build`";
            return Err(Failure::local(what, help));
        }
        let (prefix, mode) = (format!("claude-peers-{trial}-"), Permissions::from_mode(0o700));
        let made = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir();
        let made = made.and_then(|dir| Ok((fs::canonicalize(dir.path())?, dir)));
        let (root, dir) = made.map_err(|e| no_room("making a temporary directory", &e))?;
        Ok(Self { dir, programs, socket: root.join("broker.sock"), root })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.path(name);
        fs::create_dir(&folder).map_err(|e| no_room("making a directory", &e))?;
        Ok(folder)
    }

    /// Starts one of our programs as set up by `prepare`. It logs onto the stage and is killed when its handle is dropped.
    pub fn start(&self, program: &str, log: &str, prepare: impl FnOnce(&mut Command)) -> Result<Child, Failure> {
        let path = self.path(&format!("{log}.log"));
        let log = File::options().create(true).append(true).open(path).map_err(|e| no_room("opening a log", &e))?;
        let mut command = self.command(self.programs.join(program));
        command.env("CLAUDE_PEERS_SOCKET", &self.socket).stderr(log);
        prepare(&mut command);
        command.spawn().map_err(|e| Failure::local(format!("running {program}: {e}"), "install it again"))
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let ties = |name: &OsStr| SURROUNDINGS.split(' ').any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()));
        for (name, _) in std::env::vars_os().filter(|(name, _)| ties(name)) {
            command.env_remove(name);
        }
        command.current_dir(&self.root).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// A git repository on the branch `main`.
    pub async fn repository(&self, name: &str) -> Result<PathBuf, Failure> {
        const HELP: &str = "the demo needs git 2.32 or later: install it and try again";
        let mut git = self.command("git");
        git.args(["init", "--quiet", "--initial-branch=main", name]);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let ran = git.output().await.map_err(|e| Failure::local(format!("running git: {e}"), HELP))?;
        if ran.status.success() {
            return Ok(self.path(name));
        }
        Err(Failure::local(format!("`git init` failed: {}", String::from_utf8_lossy(&ran.stderr).trim()), HELP))
    }

    /// The last lines of all logs, to report with a failure.
    pub fn logs(&self) -> String {
        let mut logs: Vec<_> = fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        let tail = |path: &PathBuf| {
            let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
            let lines: Vec<_> = text.lines().collect();
            let (name, end) = (path.file_name()?.display(), lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n"));
            (!end.is_empty()).then(|| format!("\n--- the end of {name}\n{end}"))
        };
        logs.iter().filter_map(tail).collect()
    }

    pub fn remove(self) -> Result<(), Failure> {
        self.dir.close().map_err(|e| Failure::local(format!("removing {}: {e}", self.root.display()), "remove it by hand"))
    }
}

pub struct Broker {
    pub client: Client,
    process: Child,
}

impl Broker {
    /// Starts it on the stage's database and waits until it answers.
    pub async fn start(stage: &Stage) -> Result<(Self, Hello), Failure> {
        let mut process = stage.start("claude-peersd", "broker", |command| {
            command.env("CLAUDE_PEERS_DB", stage.path("peers.db")).env("CLAUDE_PEERS_PORT", "0").stdout(Stdio::null());
        })?;
        let client = Client::new(stage.socket.clone(), "claude-peers");
        let hello = tokio::select! {
            hello = START.run(async || client.hello().await, Result::is_err) => hello,
            ended = process.wait() => return Err(broken(format!("claude-peersd ended before it was ready: {}", how(ended)))),
        };
        let hello = hello.map_err(|_| late("claude-peersd was not ready"))?;
        Ok((Self { client, process }, hello))
    }

    pub async fn kill(mut self) -> Result<(), Failure> {
        self.process.kill().await.map_err(|e| broken(format!("killing claude-peersd: {e}")))
    }

    pub async fn stop(self) -> Result<(), Failure> {
        let _: Done = self.client.post("/v1/stop", None, &serde_json::json!({})).await?;
        ends_well(self.process, "claude-peersd").await
    }
}

/// Waits for a program of ours that should end by itself.
pub async fn ends_well(mut process: Child, name: &str) -> Result<(), Failure> {
    match timeout(PATIENCE, process.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(ended) => Err(broken(format!("{name} failed when it was stopped: {}", how(ended)))),
        Err(_) => Err(late(&format!("{name} did not stop"))),
    }
}

fn how(ended: io::Result<ExitStatus>) -> String {
    ended.map_or_else(|e| e.to_string(), |status| status.to_string())
}

pub fn broken(what: impl Into<String>) -> Failure {
    Failure::local(what, "this is a bug in claude-peers; please report it, with the logs if there are any")
}

pub fn late(what: &str) -> Failure {
    broken(format!("{what} within {} s", PATIENCE.as_secs()))
}

fn no_room(doing: &str, error: &io::Error) -> Failure {
    let place = std::env::temp_dir();
    Failure::local(format!("{doing} in {}: {error}", place.display()), "make room there, or set TMPDIR to another directory")
}
