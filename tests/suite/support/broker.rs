//! A real `claude-peersd` in a folder of its own.

use super::{PATIENCE, folder, http::Http};
use serde_json::Value;
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// A broker of this test's own; stopped and its log printed (if the test fails) at the end.
pub struct Broker {
    folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    /// The TCP port it listens on.
    pub port: u16,
}

impl Broker {
    /// A broker with default settings, ready to serve.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A broker with these environment variables, ready to serve.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let mut broker = Self::prepared(settings);
        broker.launch();
        broker
    }

    /// A broker that is not started yet: its folder can be prepared.
    pub fn prepared(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { folder: folder(), settings, child: None, port: 0 }
    }

    /// The folder with everything of this broker's.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder().join("run/broker.sock")
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.folder().join("peers.db")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// The environment that makes any of our programs use this broker.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec![
            ("CLAUDE_PEERS_SOCKET".to_owned(), path(self.socket())),
            ("CLAUDE_PEERS_DB".to_owned(), path(self.database())),
            ("CLAUDE_PEERS_PORT".to_owned(), self.port.to_string()),
        ]
    }

    /// The command that starts it, with nothing of the tester's environment but PATH and HOME set to the folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peersd"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder().join("log")).unwrap();
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder());
        command.envs(self.env()).envs(self.settings.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts it (again) and waits for its `READY=1`.
    pub fn launch(&mut self) {
        let notify = self.folder().join("notify.sock");
        drop(fs::remove_file(&notify));
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = self.command().env("NOTIFY_SOCKET", &notify).spawn().unwrap();
        let mut buffer = [0; 4096];
        // A broker that ends instead of getting ready is seen at once: the datagram socket would wait for ever.
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        let start = std::time::Instant::now();
        loop {
            match socket.recv(&mut buffer) {
                Ok(size) if String::from_utf8_lossy(&buffer[..size]).lines().any(|line| line == "READY=1") => break,
                Ok(_) => {}
                Err(_) => {
                    if let Some(status) = child.try_wait().unwrap() {
                        panic!("the broker ended with {status} instead of getting ready:\n{}", self.log());
                    }
                    assert!(start.elapsed() < PATIENCE, "the broker did not get ready:\n{}", self.log());
                }
            }
        }
        self.child = Some(child);
        let status: Value = self.http().get("/v1/status").json();
        let tcp = status["listeners"].as_array().unwrap().iter().find(|l| l["kind"] == "tcp").unwrap();
        self.port = tcp["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Ends it as a power cut would end a process: SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        self.wait()
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// Kills it and starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// HTTP over its Unix socket.
    pub fn http(&self) -> Http {
        Http::unix(&self.socket())
    }

    /// HTTP over its TCP socket.
    pub fn tcp(&self) -> Http {
        Http::tcp(self.port)
    }

    /// The CLI, using this broker.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peers"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder());
        command.envs(self.env()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the CLI with `--json`; its exit code and what it printed.
    pub fn cli_json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.cli(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let json = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{arguments:?} printed no JSON ({e}): {text:?} {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), json)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- the broker's log ---\n{}--- end of log ---", self.log());
        }
    }
}

/// Sends a signal by its short name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}: {status}");
}
