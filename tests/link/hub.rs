//! A real `nats-server` with the configuration that `claude-peers link init` writes.

use crate::{
    support::{Broker, eventually, folder, unused_port},
    world::LINK,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// The hub, and its owner's files. Dropping it kills the server.
pub struct Hub {
    home: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
}

impl Hub {
    /// A new hub that runs.
    pub fn start() -> Self {
        let mut hub = Self::set_up();
        hub.launch();
        hub
    }

    /// A new hub that does not run yet.
    pub fn set_up() -> Self {
        Self::set_up_on(&["127.0.0.1"], &[])
    }

    /// The same, with servers on these addresses and further words for `init`.
    pub fn set_up_on(hosts: &[&str], words: &[&str]) -> Self {
        let port = unused_port();
        let hub = Self { home: folder(), child: None, port };
        let addresses: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let made = hub.owner(&[&["init"], &addresses[..], words].concat());
        assert!(made.status.success(), "{}", said(&made));
        hub
    }

    /// A hub that others run with this configuration, and of whose machines the user owns some by these credentials.
    pub fn of_others(credentials: &Path, configuration: impl FnOnce(u16) -> String) -> Self {
        let port = unused_port();
        let mut hub = Self { home: folder(), child: None, port };
        let address = format!("nats://{}", hub.address());
        let made = hub.owner(&["init", &address, "--credentials", credentials.to_str().unwrap()]);
        assert!(made.status.success(), "{}", said(&made));
        fs::write(hub.folder().join("hub/nats-server.conf"), configuration(port)).unwrap();
        hub.launch();
        hub
    }

    /// A server with this configuration, without an owner of machines.
    pub fn serving(configuration: impl FnOnce(u16) -> String) -> Self {
        let port = unused_port();
        let mut hub = Self { home: folder(), child: None, port };
        fs::create_dir_all(hub.folder().join("hub")).unwrap();
        fs::write(hub.folder().join("hub/nats-server.conf"), configuration(port)).unwrap();
        hub.launch();
        hub
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The owner's folder.
    pub fn folder(&self) -> PathBuf {
        self.home.path().join(".config/claude-peers/hub")
    }

    /// Runs the program as the owner of the machines.
    pub fn owner(&self, words: &[&str]) -> Output {
        self.owner_command(words).output().unwrap()
    }

    fn owner_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(LINK);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.home.path()).args(words);
        command.stdin(Stdio::null());
        command
    }

    /// Starts the server, and waits until it greets a connection.
    pub fn launch(&mut self) {
        let folder = self.folder().join("hub");
        let log = fs::File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let mut server = Command::new("nats-server");
        server.args(["--config", "nats-server.conf"]).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(server.spawn().unwrap());
        eventually("the hub greets", || {
            let mut greeting = String::new();
            BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).ok()?).read_line(&mut greeting).ok()?;
            greeting.starts_with("INFO").then_some(())
        });
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts to invite a machine; returns when the invitation is printed.
    pub fn invite(&self, name: &str) -> Invitation {
        let mut invite = self.owner_command(&["invite", name]);
        let mut child = invite.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let line = line.trim().strip_prefix("claude-peers link join ").map(str::to_owned);
        let mut invitation = Invitation { child, line: line.clone().unwrap_or_default() };
        assert!(line.is_some(), "no invitation: {}", invitation.end());
        invitation
    }

    /// Lets the machine of this broker join.
    pub fn join(&self, name: &str, broker: &Broker) {
        let mut invitation = self.invite(name);
        let joined = join(broker, &[&invitation.line]);
        assert!(joined.status.success(), "{}\n{}", said(&joined), invitation.end());
        let end = invitation.end();
        assert!(end.contains("has joined"), "{end}");
    }

    /// Removes a machine.
    pub fn revoke(&self, name: &str) {
        let revoked = self.owner(&["revoke", name]);
        assert!(revoked.status.success(), "{}", said(&revoked));
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- the hub's log ---\n{log}--- end of log ---");
        }
    }
}

/// An invitation, and the `invite` that waits for its machine. Dropping it kills that.
pub struct Invitation {
    pub child: Child,
    pub line: String,
}

impl Invitation {
    /// Waits until `invite` has ended; returns what it said.
    pub fn end(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        self.child.wait().unwrap();
        said
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        // It has ended in most tests.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs the program on the machine of this broker.
pub fn on(broker: &Broker, words: &[&str]) -> Output {
    let mut command = Command::new(LINK);
    command.env_clear().envs(broker.env()).env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", broker.folder());
    command.args(words).stdin(Stdio::null()).output().unwrap()
}

/// Runs `join` on the machine of this broker.
pub fn join(broker: &Broker, words: &[&str]) -> Output {
    on(broker, &[&["join"], words].concat())
}

/// The folder of that machine's link.
pub fn link_folder(home: &Path) -> PathBuf {
    home.join(".config/claude-peers/link")
}

/// What the program wrote to standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
