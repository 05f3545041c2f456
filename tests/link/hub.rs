//! A real `nats-server` with the configuration that docs/link.md prints.

use crate::{
    support::{broker::signal, eventually, folder},
    world::LINK,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const PAGE: &str = include_str!("../../docs/link.md");
/// The names in the printed configuration, each with the file of its key.
const KEYS: [(&str, &str); 3] = [("ADMIN_KEY", "admin"), ("LAPTOP_KEY", "laptop"), ("DESKTOP_KEY", "desktop")];

/// The hub. Dropping it kills the server.
pub struct Hub {
    folder: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
}

impl Hub {
    /// A server with the printed configuration and the stream.
    pub fn start() -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let mut hub = Self { folder: folder(), child: None, port };
        let keys = KEYS.map(|(word, name)| (word, make_key(&hub.key(name))));
        let config = printed().replace("0.0.0.0:4222", &format!("127.0.0.1:{port}"));
        let config = config.replace("/var/lib/claude-peers-hub", hub.folder.path().join("store").to_str().unwrap());
        fs::write(hub.config(), keys.iter().fold(config, |config, (word, key)| config.replace(word, key))).unwrap();
        hub.launch();
        let prepare = Command::new(LINK).args(["prepare", "--hub", &hub.url(), "--key"]).arg(hub.key("admin")).output().unwrap();
        assert!(prepare.status.success(), "{}", String::from_utf8_lossy(&prepare.stderr));
        hub
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The file of a key that the configuration names.
    pub fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.key"))
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("hub.conf")
    }

    /// Starts the server, and waits until it greets a connection.
    pub fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut server = Command::new("nats-server");
        server.arg("--config").arg(self.config()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
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

    /// Takes the block of a machine out of the configuration, as the page says.
    pub fn revoke(&self, key: &Path) {
        let public = public_key(key);
        let config = fs::read_to_string(self.config()).unwrap();
        fs::write(self.config(), config.replace(&public, &make_key(&self.key("nobody")))).unwrap();
        signal(self.child.as_ref().unwrap().id(), "HUP");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- the hub's log ---\n{log}--- end of log ---");
        }
    }
}

/// The configuration that the page prints.
fn printed() -> String {
    let (_, rest) = PAGE.split_once("```text\n   listen:").unwrap();
    format!("listen:{}", rest.split_once("```").unwrap().0)
}

/// Makes a key; returns its public part.
fn make_key(file: &Path) -> String {
    let made = Command::new(LINK).arg("key").arg(file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    fs::write(file.with_extension("public"), &public).unwrap();
    public
}

fn public_key(file: &Path) -> String {
    fs::read_to_string(file.with_extension("public")).unwrap()
}
