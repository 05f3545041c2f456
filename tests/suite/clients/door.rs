//! Messages are let into a session by a plugin in its agent. Here this process is the agent, and the plugin.

use super::{open, start, under};
use crate::support::{Broker, PATIENCE, Session, eventually, folder};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};
use tempfile::TempDir;

/// The connection of a session's server, at the plugin's end.
struct Plugin {
    lines: BufReader<UnixStream>,
    socket: PathBuf,
}

/// The socket of the plugin in this process.
fn socket(broker: &Broker) -> PathBuf {
    broker.socket().with_file_name("doors").join(format!("{}.sock", std::process::id()))
}

fn listen(broker: &Broker) -> UnixListener {
    let socket = socket(broker);
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    listener
}

impl Plugin {
    /// Waits for the server, and reads in which directory its session is.
    fn accept(broker: &Broker, listener: &UnixListener) -> (Self, Value) {
        let stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut plugin = Self { lines: BufReader::new(stream), socket: socket(broker) };
        let opened = plugin.hears();
        (plugin, opened)
    }

    fn hears(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// The next frame, and its text.
    fn frame(&mut self) -> (Value, String) {
        let frame = self.hears()["show"].clone();
        (frame["frame"].clone(), frame["text"].as_str().unwrap().to_owned())
    }

    fn says(&self, line: &Value) {
        self.lines.get_ref().write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A broker, a session of OpenCode with a plugin that has this session, and a session that writes to it.
struct Scene {
    broker: Broker,
    _place: TempDir,
    session: Session,
    plugin: Plugin,
    other: Session,
    id: String,
    _listener: UnixListener,
}

fn scene() -> Scene {
    let (broker, place) = (Broker::start(), folder());
    let directory = place.path().join("work");
    fs::create_dir(&directory).unwrap();
    let listener = listen(&broker);
    let session = open(&broker, &directory, "opencode");
    let (plugin, opened) = Plugin::accept(&broker, &listener);
    assert_eq!(opened, json!({"open": {"protocol": 1, "cwd": directory}}));
    plugin.says(&json!({"session": "ses_1", "idle": true}));
    let mut other = open(&broker, place.path(), "some-new-client");
    let reached = |peer: &Value| peer["delivery"] == "inbox";
    let peer = eventually("it is reached", || other.peers().into_iter().find(reached));
    assert!(peer["deliveryReason"].as_str().unwrap().ends_with("its plugin confirms what is shown"), "{peer}");
    assert_eq!(peer["agent"]["name"], "opencode");
    let id = peer["id"].as_str().unwrap().to_owned();
    Scene { broker, _place: place, session, plugin, other, id, _listener: listener }
}

impl Scene {
    fn send(&mut self, text: &str) -> Value {
        self.other.send(&self.id, text)["messageId"].clone()
    }

    /// Sends a message and takes the frame with it.
    fn frame(&mut self, text: &str) -> (Value, Value) {
        let id = self.send(text);
        let (frame, shown) = self.plugin.frame();
        assert!(shown.contains(text) && shown.contains(id.as_str().unwrap()) && shown.contains("not from the user"), "{shown}");
        (id, frame)
    }
}

#[test]
fn message_is_delivered_once_it_is_shown() {
    let mut scene = scene();
    let (id, frame) = scene.frame("Which port?");
    scene.broker.message_once("offered", &id);
    let later = scene.send("Are you there?");
    assert_eq!(scene.session.call("list_peers", json!({"scope": "machine"})).to_string().matches("Which port?").count(), 0);
    scene.plugin.says(&json!({"shown": frame}));
    let delivered = scene.broker.message_once("delivered", &id);
    assert_eq!(delivered["route"], "inbox");
    let (frame, text) = scene.plugin.frame();
    assert!(text.contains("Are you there?") && !text.contains("Which port?"), "{text}");
    scene.plugin.says(&json!({"shown": frame}));
    scene.broker.message_once("delivered", &later);
}

#[test]
fn refused_message_comes_another_way() {
    let mut scene = scene();
    let (id, frame) = scene.frame("Which port?");
    scene.plugin.says(&json!({"failed": frame, "reason": "the session was cleared"}));
    let (_, text) = scene.plugin.frame();
    assert!(text.contains("Which port?") && text.contains("repeat"), "{text}");
    fs::remove_file(&scene.plugin.socket).unwrap();
    scene.plugin.lines.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
    let result = eventually("a result has the message", || {
        Some(scene.session.call("check_messages", json!({}))).filter(|result| result.to_string().contains("Which port?"))
    });
    assert!(result.to_string().contains("repeat"), "{result}");
    scene.broker.message_once("delivered", &id);
}

#[test]
fn plugin_without_a_session_is_no_door() {
    let mut scene = scene();
    scene.plugin.says(&json!({"session": null, "idle": true}));
    let peer = |scene: &mut Scene| scene.other.peers().into_iter().find(|peer| peer["id"] == scene.id.as_str());
    eventually("it is not reached", || peer(&mut scene).filter(|peer| peer["delivery"] == "pull"));
    scene.plugin.says(&json!({"session": "ses_1", "idle": true}));
    eventually("it is reached again", || peer(&mut scene).filter(|peer| peer["delivery"] == "inbox"));
}

#[test]
fn session_of_the_plugin_is_the_peer() {
    let mut scene = scene();
    let first = scene.id.clone();
    // Nothing waits for the first session, so its name stays free for it.
    scene.plugin.says(&json!({"session": "ses_2", "idle": true}));
    let (id, frame) = scene.frame("Which port?");
    scene.plugin.says(&json!({"shown": frame}));
    scene.broker.message_once("delivered", &id);
    assert_eq!(scene.id, first, "a new session under the same server is the same peer");
}

#[test]
fn late_plugin_is_found() {
    let (broker, place) = (Broker::start(), folder());
    let mut other = open(&broker, place.path(), "some-new-client");
    let _session = open(&broker, place.path(), "opencode");
    let of_session = |peer: &Value| peer["agent"]["name"] == "opencode";
    eventually("it is listed", || other.peers().into_iter().find(of_session));
    let listener = listen(&broker);
    let (plugin, _) = Plugin::accept(&broker, &listener);
    plugin.says(&json!({"session": "ses_1", "idle": true}));
    eventually("it is reached", || other.peers().into_iter().find(|peer| of_session(peer) && peer["delivery"] == "inbox"));
}

#[test]
fn line_without_sense_ends_the_connection() {
    let mut scene = scene();
    scene.plugin.says(&json!({"news": "from a newer plugin"}));
    scene.plugin.lines.get_ref().write_all(b"no JSON\n").unwrap();
    let mut rest = String::new();
    assert_eq!(scene.plugin.lines.read_line(&mut rest).unwrap(), 0, "{rest}");
}

#[test]
fn plugin_of_an_outer_agent_is_no_door() {
    let (broker, place) = (Broker::start(), folder());
    let listener = listen(&broker);
    let mut other = open(&broker, place.path(), "some-new-client");
    let mut session = under("gemini", &start(&broker, place.path()));
    session.handshake_as("opencode");
    eventually("it is listed", || other.peers().into_iter().find(|peer| peer["agent"]["name"] == "opencode"));
    listener.set_nonblocking(true).unwrap(); // it looks for a door before it registers
    assert_eq!(listener.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}
