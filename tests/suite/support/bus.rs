//! The test's own session bus and a client of it, which shows values as JSON.

use super::{PATIENCE, broker::signal, folder};
use futures_util::StreamExt;
use serde_json::Value;
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tokio::{runtime::Runtime, time::timeout};
use zbus::{Connection, DBusError, DynamicType, MatchRule, MessageStream, Variant, message::Type, wire::Structure};

/// The broker's bus name, which is also its interface's name.
pub const NAME: &str = "dev.claudepeers.Broker1";
/// The path of its object.
pub const PATH: &str = "/dev/claudepeers/Broker1";

/// A session bus.
pub struct Bus {
    daemon: Child,
    folder: tempfile::TempDir,
    address: String,
}

impl Bus {
    /// Starts a bus of this user.
    pub fn start() -> Self {
        let mut daemon = Command::new("dbus-daemon");
        daemon.arg("--session");
        Self::run(daemon, folder())
    }

    /// Starts a bus with this command, with its socket in this folder.
    pub fn run(mut daemon: Command, folder: tempfile::TempDir) -> Self {
        daemon.args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"]);
        daemon.arg(format!("--address=unix:path={}", folder.path().join("bus").display()));
        let mut daemon = daemon.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut address = String::new();
        // It prints its address once it listens.
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "dbus-daemon did not start");
        Self { daemon, folder, address: address.trim().to_owned() }
    }

    /// The folder with its socket, `bus`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, name: &str) {
        signal(self.daemon.id(), name);
    }

    /// A client that receives every signal of the broker's object from now on.
    pub fn client(&self) -> Client {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connection, signals) = runtime.block_on(async {
            let connection = zbus::connection::Builder::address(self.address()).build().await.unwrap();
            let rule = MatchRule::builder().msg_type(Type::Signal).path(PATH).build().unwrap();
            let signals = MessageStream::for_match_rule(rule, &connection, None).await.unwrap();
            (connection, signals)
        });
        Client { runtime, connection, signals, heard: VecDeque::new() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// A socket that accepts connections and never answers.
pub fn silent(folder: &Path) -> (PathBuf, std::os::unix::net::UnixListener) {
    let path = folder.join("silent");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    (path, listener)
}

/// A client of the bus.
pub struct Client {
    runtime: Runtime,
    connection: Connection,
    signals: MessageStream,
    heard: VecDeque<(String, Value)>,
}

impl Client {
    /// Calls a method of the broker. Returns its values, or the error's name and text.
    pub fn call(&self, method: &str, arguments: &(impl serde::Serialize + DynamicType)) -> Result<Value, (String, String)> {
        self.call_of(NAME, PATH, NAME, method, arguments)
    }

    /// Calls any method.
    pub fn call_of(
        &self,
        name: &str,
        path: &str,
        interface: &str,
        method: &str,
        arguments: &(impl serde::Serialize + DynamicType),
    ) -> Result<Value, (String, String)> {
        let call = self.connection.call_method(Some(name), path, Some(interface), method, arguments);
        match self.runtime.block_on(async { timeout(PATIENCE, call).await }).expect("an answer") {
            Ok(answer) => Ok(body(&answer)),
            Err(zbus::Error::FDO(error)) => Err((error.name().to_string(), error.description().unwrap_or_default().to_owned())),
            Err(zbus::Error::MethodError(name, text, _)) => Err((name.to_string(), text.unwrap_or_default())),
            Err(error) => panic!("calling {method}: {error}"),
        }
    }

    /// A property of the broker.
    pub fn property(&self, name: &str) -> Value {
        self.call_of(NAME, PATH, "org.freedesktop.DBus.Properties", "Get", &(NAME, name)).unwrap()[0].clone()
    }

    /// Whether the broker's name is taken.
    pub fn broker_is_there(&self) -> bool {
        self.owns(NAME)
    }

    /// Whether a program has this name.
    pub fn owns(&self, name: &str) -> bool {
        let bus = "org.freedesktop.DBus";
        self.call_of(bus, "/org/freedesktop/DBus", bus, "NameHasOwner", &(name,)).unwrap()[0] == true
    }

    /// Takes the broker's name.
    pub fn take_name(&self) {
        self.runtime.block_on(self.connection.request_name(NAME)).unwrap();
    }

    /// The values of the next signal with this name.
    pub fn signal(&mut self, name: &str) -> Value {
        if let Some(at) = self.heard.iter().position(|(heard, _)| heard == name) {
            return self.heard.remove(at).unwrap().1;
        }
        loop {
            let next = self.runtime.block_on(async { timeout(PATIENCE, self.signals.next()).await });
            let message = next.unwrap_or_else(|_| panic!("no signal {name}")).unwrap().unwrap();
            let (member, values) = (message.header().member().unwrap().to_string(), body(&message));
            if member == name {
                return values;
            }
            self.heard.push_back((member, values));
        }
    }

    /// Waits for the signal that the property has changed to this value.
    pub fn property_becomes(&mut self, name: &str, value: &Value) {
        while self.signal("PropertiesChanged")[1].get(name) != Some(value) {}
    }
}

fn body(message: &zbus::message::Message) -> Value {
    let body = message.body();
    match body.signature().to_string().as_str() {
        "" => Value::Array(Vec::new()),
        _ => body.deserialize::<Structure>().unwrap().fields().iter().map(json).collect(),
    }
}

/// A value from the bus as JSON.
fn json(value: &Variant<'_>) -> Value {
    match value {
        Variant::Bool(yes) => (*yes).into(),
        Variant::I32(number) => (*number).into(),
        Variant::I64(number) => (*number).into(),
        Variant::U32(number) => (*number).into(),
        Variant::U64(number) => (*number).into(),
        Variant::Str(text) => text.as_str().into(),
        Variant::Variant(inner) => json(inner),
        Variant::Array(list) => list.inner().iter().map(json).collect(),
        Variant::Dict(dict) => dict.iter().map(|(name, value)| (json(name).as_str().unwrap().to_owned(), json(value))).collect(),
        other => panic!("{other:?} is no type of ours"),
    }
}

/// A program that shows notifications (org.freedesktop.Notifications), and says which.
pub struct Desktop {
    runtime: Runtime,
    connection: Connection,
    events: std::sync::mpsc::Receiver<Value>,
}

struct Notifications {
    events: std::sync::mpsc::Sender<Value>,
    count: u32,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    fn get_capabilities(&self) -> Vec<String> {
        ["actions", "body", "body-markup"].map(str::to_owned).into()
    }

    #[expect(clippy::too_many_arguments, reason = "the specification's")]
    fn notify(
        &mut self,
        _program: &str,
        _replaces: u32,
        _icon: &str,
        title: &str,
        text: &str,
        actions: Vec<String>,
        _hints: std::collections::HashMap<String, Variant<'_>>,
        _patience: i32,
    ) -> u32 {
        self.count += 1;
        drop(self.events.send(serde_json::json!({"number": self.count, "title": title, "text": text, "actions": actions})));
        self.count
    }

    fn close_notification(&mut self, number: u32) {
        drop(self.events.send(serde_json::json!({"closed": number})));
    }
}

impl Bus {
    /// A desktop on this bus.
    pub fn desktop(&self) -> Desktop {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (tell, events) = std::sync::mpsc::channel();
        let connection = runtime.block_on(async {
            let connection = zbus::connection::Builder::address(self.address()).build().await.unwrap();
            let shown = Notifications { events: tell, count: 0 };
            connection.object_server().at("/org/freedesktop/Notifications", shown).await.unwrap();
            connection.request_name("org.freedesktop.Notifications").await.unwrap();
            connection
        });
        Desktop { runtime, connection, events }
    }
}

impl Desktop {
    /// What happens next: a notification, or that one is closed.
    pub fn next(&self) -> Value {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// Whether nothing has happened since. A broker that shows something after a commit does so within a moment.
    pub fn is_silent(&self) -> bool {
        self.events.recv_timeout(std::time::Duration::from_secs(1)).is_err()
    }

    /// Clicks on a notification.
    pub fn click(&self, number: &Value) {
        let number = u32::try_from(number.as_u64().unwrap()).unwrap();
        let (path, name) = ("/org/freedesktop/Notifications", "org.freedesktop.Notifications");
        let body = (number, "default");
        let clicked = self.connection.emit_signal(None::<&str>, path, name, "ActionInvoked", &body);
        self.runtime.block_on(clicked).unwrap();
    }
}
