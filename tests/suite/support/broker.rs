//! A real `claude-peersd` in its own folder.

use super::{PATIENCE, eventually, folder_in, http::Http};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::{
    fs,
    net::Shutdown,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

/// The test's own broker. Dropping it stops the broker, and prints its log if the test fails.
pub struct Broker {
    folder: Arc<tempfile::TempDir>,
    settings: Vec<(String, String)>,
    child: Option<Child>,
    manager: Option<Manager>,
    /// The readiness message it sent to its service manager.
    pub ready: String,
    /// The TCP port it listens on.
    pub port: u16,
}

impl Broker {
    /// Starts a broker with default settings.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a broker with these environment variables.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let mut broker = Self::prepared(settings);
        broker.launch();
        broker
    }

    /// A broker that is not started yet, so that its folder can be prepared.
    pub fn prepared(settings: &[(&str, &str)]) -> Self {
        Self::prepared_in(&std::env::temp_dir(), settings)
    }

    /// Like [`Broker::prepared`], with its folder under `place`.
    pub fn prepared_in(place: &Path, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { folder: Arc::new(folder_in(place)), settings, child: None, manager: None, ready: String::new(), port: 0 }
    }

    /// The same broker for another thread, which talks to it and starts sessions while this one kills it.
    pub fn shared(&self) -> Self {
        let (folder, settings) = (self.folder.clone(), self.settings.clone());
        Self { folder, settings, child: None, manager: None, ready: String::new(), port: self.port }
    }

    /// The folder with all of its files.
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

    /// The environment that makes our programs use this broker, and its clock if that is off: all programs of a machine have the same.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let clock = self.settings.iter().filter(|(name, _)| name == "LD_PRELOAD" || name.starts_with("FAKETIME"));
        let place = [
            ("CLAUDE_PEERS_SOCKET".to_owned(), path(self.socket())),
            ("CLAUDE_PEERS_DB".to_owned(), path(self.database())),
            ("CLAUDE_PEERS_PORT".to_owned(), self.port.to_string()),
        ];
        place.into_iter().chain(clock.cloned()).collect()
    }

    /// The command that starts it with a clean environment: only PATH is inherited, and HOME is its folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peersd"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder().join("log")).unwrap();
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder());
        command.envs(self.env()).envs(self.settings.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// The same through a shell that first runs `preparation`, such as `ulimit`, and then becomes the broker (`exec`).
    pub fn command_after(&self, preparation: &str) -> Command {
        let plain = self.command();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{preparation}; exec \"$0\"")).arg(plain.get_program());
        command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Runs a start that must fail and returns its exit code. Its messages are in the log.
    pub fn refused(&self) -> i32 {
        let mut child = self.command().spawn().unwrap();
        eventually("the broker refuses to start", || child.try_wait().unwrap()).code().unwrap()
    }

    /// Starts the broker and waits for its `READY=1`.
    pub fn launch(&mut self) {
        self.launch_as(self.command());
    }

    /// Like [`Broker::launch`], with a given command.
    pub fn launch_as(&mut self, mut command: Command) {
        let notify = self.folder().join("notify.sock");
        drop(fs::remove_file(&notify));
        let manager = Manager::listen(&notify);
        let mut child = command.env("NOTIFY_SOCKET", &notify).spawn().unwrap();
        drop(command); // closes the descriptors it holds for the child
        let start = std::time::Instant::now();
        loop {
            // The short timeout notices a broker that exits instead of getting ready.
            match manager.next(Duration::from_millis(200)) {
                Some(ready) => {
                    self.ready = ready;
                    if self.ready.lines().any(|line| line == "READY=1") {
                        break;
                    }
                }
                None => {
                    if let Some(status) = child.try_wait().unwrap() {
                        panic!("the broker ended with {status} instead of getting ready:\n{}", self.log());
                    }
                    assert!(start.elapsed() < PATIENCE, "the broker did not get ready:\n{}", self.log());
                }
            }
        }
        (self.child, self.manager) = (Some(child), Some(manager));
        // A broker with a damaged database may have left again.
        let Ok(answer) = self.http().try_get("/v1/status") else { return };
        let status: Value = serde_json::from_str(&answer.body).unwrap();
        if let Some(tcp) = status["listeners"].as_array().and_then(|all| all.iter().find(|listener| listener["kind"] == "tcp")) {
            self.port = tcp["address"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
        }
    }

    /// The next message to its service manager after `READY=1`.
    pub fn tells(&self) -> String {
        self.tells_within(PATIENCE).expect("something is told to the service manager")
    }

    /// Waits for a message to its service manager that contains these words.
    pub fn tells_that(&self, words: &str) {
        while !self.tells().contains(words) {}
    }

    /// The next message to its service manager, or `None` after this time.
    pub fn tells_within(&self, patience: Duration) -> Option<String> {
        self.manager.as_ref().unwrap().next(patience)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Kills the broker with SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Its resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        resident.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        self.wait()
    }

    /// Waits for the broker to exit.
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        let status = eventually("the broker ends", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Kills the broker and starts it again with the same folder and port.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Kills the broker and starts it again as if this much time had passed, by moving every time in its database into the past.
    pub fn restart_later(&mut self, by: Duration) {
        self.kill();
        let connection = Connection::open(self.database()).unwrap();
        let times = [
            ("message", &["sent_at", "expires_at", "offered_at", "delivered_at", "expired_at"][..]),
            ("peer", &["registered_at", "last_seen", "proved_at"]),
            ("session", &["seen_at"]),
        ];
        for (table, columns) in times {
            let earlier: Vec<String> = columns.iter().map(|time| format!("{time} = {time} - ?1")).collect();
            connection
                .execute(&format!("UPDATE {table} SET {}", earlier.join(", ")), [i64::try_from(by.as_millis()).unwrap()])
                .unwrap();
        }
        connection.close().unwrap();
        self.launch();
    }

    /// Queries one number from its database while it runs.
    pub fn count(&self, sql: &str) -> i64 {
        let connection = Connection::open_with_flags(self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The numbers of stored messages and peers, which a refused request must not change.
    pub fn stored(&self) -> (i64, i64) {
        (self.count("SELECT count(*) FROM message"), self.count("SELECT count(*) FROM peer"))
    }

    /// A message with its receipt as the user sees it.
    pub fn message(&self, id: &Value) -> Value {
        self.http().get(&format!("/v1/messages/{}", id.as_str().unwrap())).json()
    }

    /// Waits until a message is in this state and returns it.
    pub fn message_once(&self, state: &str, id: &Value) -> Value {
        eventually(&format!("message {id} is {state}"), || Some(self.message(id)).filter(|message| message["state"] == state))
    }

    /// All listed peers.
    pub fn peers(&self) -> Vec<Value> {
        self.http().get("/v1/peers?scope=machine").json()["peers"].as_array().unwrap().clone()
    }

    /// HTTP over its Unix socket.
    pub fn http(&self) -> Http {
        Http::unix(&self.socket())
    }

    /// HTTP over its TCP socket.
    pub fn tcp(&self) -> Http {
        Http::tcp(self.port)
    }

    /// A CLI command that uses this broker.
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-peers"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder());
        command.envs(self.env()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the CLI with `--json` and returns its exit code and output.
    pub fn cli_json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.cli(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let json = serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("{arguments:?} printed no JSON ({e}): {text:?} {}", String::from_utf8_lossy(&output.stderr))
        });
        (output.status.code().unwrap(), json)
    }
}

/// The receiving side of the broker's service manager. It reads messages at once, because their sender waits for that.
struct Manager {
    socket: UnixDatagram,
    told: Mutex<Receiver<String>>,
}

impl Manager {
    fn listen(at: &Path) -> Self {
        let socket = UnixDatagram::bind(at).unwrap();
        let (reader, (tell, told)) = (socket.try_clone().unwrap(), channel());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(size @ 1..) = reader.recv(&mut buffer)
                && tell.send(String::from_utf8_lossy(&buffer[..size]).into_owned()).is_ok()
            {}
        });
        Self { socket, told: Mutex::new(told) }
    }

    /// The next message, or `None` after this time.
    fn next(&self, patience: Duration) -> Option<String> {
        self.told.lock().unwrap().recv_timeout(patience).ok()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(self.socket.shutdown(Shutdown::Both)); // ends the reader
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

/// Sends a signal, given by its short name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}: {status}");
}
