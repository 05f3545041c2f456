//! The stage of the demo: a temporary directory that holds everything, the programs, and an environment for them that
//! knows nothing of the user's own broker, sessions, keys and git configuration.

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

/// Variables that would tie a program to what surrounds the demo, by the beginning of their names.
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

/// The stage; everything on it is removed when it is dropped.
pub struct Stage {
    dir: TempDir,
    root: PathBuf,
    programs: PathBuf,
    socket: PathBuf,
}

impl Stage {
    /// Finds the programs and makes the directory for `play`.
    pub fn set(play: &str) -> Result<Self, Failure> {
        let me = this_program()?;
        let programs = me.parent().unwrap_or(Path::new("/")).to_owned();
        if let Some(program) = ["claude-peersd", "claude-peers-mcp"].iter().find(|program| !programs.join(program).is_file()) {
            let what = format!("claude-peers needs {program} beside {}, and it is not there", me.display());
            let help = "install all three programs together (`cargo install --path .`), or build them with `cargo build`";
            return Err(Failure::local(what, help));
        }
        let (prefix, mode) = (format!("claude-peers-{play}-"), Permissions::from_mode(0o700));
        let made = tempfile::Builder::new().prefix(&prefix).permissions(mode).tempdir();
        let made = made.and_then(|dir| Ok((fs::canonicalize(dir.path())?, dir)));
        let (root, dir) = made.map_err(|e| no_room("making a temporary directory", &e))?;
        let socket = root.join("broker.sock");
        Ok(Self { dir, root, programs, socket })
    }

    /// The same stage before a broker that is not of it.
    pub fn before(self, socket: PathBuf) -> Self {
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

    /// One of our own programs, with its standard error in a log on the stage; it is killed when its handle is dropped.
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

    pub async fn repository(&self, name: &str, about: &str) -> Result<PathBuf, Failure> {
        let dir = self.folder(name)?;
        fs::write(dir.join("README.md"), about).map_err(|e| no_room("making a repository", &e))?;
        self.git(&dir, &["init", "--quiet", "--initial-branch=main"]).await?;
        self.git(&dir, &["add", "README.md"]).await?;
        self.git(&dir, &["commit", "--quiet", "--message", about]).await?;
        Ok(dir)
    }

    async fn git(&self, dir: &Path, words: &[&str]) -> Result<(), Failure> {
        const HELP: &str = "the demo needs git 2.32 or later: install it and try again";
        let mut git = self.command("git");
        git.current_dir(dir).args(["-c", "user.name=demo", "-c", "user.email=demo@example.invalid"]);
        // No housekeeping in the background that would outlive the demo.
        git.args(["-c", "maintenance.auto=false", "-c", "gc.auto=0"]).args(words);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let ran = git.output().await.map_err(|e| Failure::local(format!("running git: {e}"), HELP))?;
        if ran.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        Err(Failure::local(format!("`git {}` failed: {}", words.join(" "), said.trim()), HELP))
    }

    /// The ends of all logs that say something, for the one who has to find out what went wrong.
    pub fn logs(&self) -> String {
        let mut logs: Vec<_> = fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        let mut out = String::new();
        for path in logs {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            if !lines.is_empty() {
                out += &format!("\n--- the end of {}\n", path.file_name().unwrap_or_default().to_string_lossy());
                out += &lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
            }
        }
        out
    }

    pub fn strike(self) -> Result<(), Failure> {
        self.dir.close().map_err(|e| Failure::local(format!("removing {}: {e}", self.root.display()), "remove it by hand"))
    }
}

fn no_room(doing: &str, error: &std::io::Error) -> Failure {
    let place = std::env::temp_dir();
    Failure::local(format!("{doing} in {}: {error}", place.display()), "make room there, or set TMPDIR to another directory")
}
