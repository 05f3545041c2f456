//! A temporary directory for a trial, and an environment that hides the user's own broker, sessions, keys and git configuration.

use crate::{admin::setup::this_program, console::exit::Failure};
use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};
use tempfile::TempDir;
use tokio::process::Command;

/// Beginnings of the names of variables that would tie a program to its surroundings.
const SURROUNDINGS: [&str; 11] = [
    "CLAUDE",
    "OPENAI_",
    "GIT_",
    "NOTIFY_SOCKET",
    "LISTEN_",
    "WATCHDOG_",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "RUST_LOG",
    "DBUS_",
    "XDG_RUNTIME_DIR",
];
const LOG_TAIL: usize = 15;

/// Its directory is removed when it is dropped.
pub struct Stage {
    dir: TempDir,
    root: PathBuf,
    programs: PathBuf,
    socket: PathBuf,
}

impl Stage {
    /// `trial` goes into the directory's name.
    pub fn new(trial: &str) -> Result<Self, Failure> {
        let me = this_program()?;
        let programs = me.parent().unwrap_or(Path::new("/")).to_owned();
        if let Some(program) = ["claude-peersd", "claude-peers-mcp"].iter().find(|program| !programs.join(program).is_file()) {
            let what = format!("claude-peers needs {program} beside {}, and it is not there", me.display());
            let help = "install all three programs together (`cargo install --path .`), or build them with `cargo build`";
            return Err(Failure::local(what, help));
        }
        let (prefix, mode) = (format!("claude-peers-{trial}-"), Permissions::from_mode(0o700));
        let made = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir();
        let made = made.and_then(|dir| Ok((fs::canonicalize(dir.path())?, dir)));
        let (root, dir) = made.map_err(|e| no_room("making a temporary directory", &e))?;
        let socket = root.join("broker.sock");
        Ok(Self { dir, root, programs, socket })
    }

    /// The same stage for a broker from elsewhere.
    pub fn with_broker_at(self, socket: PathBuf) -> Self {
        Self { socket, ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.path(name);
        fs::create_dir(&folder).map_err(|e| no_room("making a directory", &e))?;
        Ok(folder)
    }

    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// One of our programs, which logs onto the stage and is killed when its handle is dropped.
    pub fn program(&self, program: &str, log: &str) -> Result<Command, Failure> {
        let path = self.path(&format!("{log}.log"));
        let log = File::options().create(true).append(true).open(path).map_err(|e| no_room("opening a log", &e))?;
        let mut command = self.command(self.programs.join(program));
        command.env("CLAUDE_PEERS_SOCKET", &self.socket).stderr(log);
        Ok(command)
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if SURROUNDINGS.iter().any(|beginning| name.as_encoded_bytes().starts_with(beginning.as_bytes())) {
                command.env_remove(name);
            }
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
        let said = String::from_utf8_lossy(&ran.stderr);
        let failed = || Failure::local(format!("`git init` failed: {}", said.trim()), HELP);
        ran.status.success().then(|| self.path(name)).ok_or_else(failed)
    }

    /// The ends of all logs, for a failure's report.
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

fn no_room(doing: &str, error: &std::io::Error) -> Failure {
    let place = std::env::temp_dir();
    Failure::local(format!("{doing} in {}: {error}", place.display()), "make room there, or set TMPDIR to another directory")
}
