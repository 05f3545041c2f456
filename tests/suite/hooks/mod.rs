//! Hooks: real processes of `claude-peers hook`, started by a process that passes for Claude Code.

mod routes;
mod troubles;
mod turns;
mod waiting;
mod who;

use crate::support::{
    Broker, eventually, folder,
    hooks::{Claude, Hook},
};
use serde_json::{Value, json};
use std::path::Path;

/// A broker, a directory, and one session in it.
struct Scene {
    broker: Broker,
    place: tempfile::TempDir,
    claude: Claude,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        let (broker, place) = (Broker::with(settings), folder());
        let claude = Claude::start(&broker, place.path(), "s-1");
        let scene = Self { broker, place, claude };
        eventually("the session is connected", || scene.peers().pop().filter(|peer| peer["status"] == "connected"));
        scene
    }

    fn peers(&self) -> Vec<Value> {
        self.broker.http().get("/v1/peers?scope=machine").json()["peers"].as_array().unwrap().clone()
    }

    fn peer(&self) -> Value {
        let mut peers = self.peers();
        assert_eq!(peers.len(), 1, "{peers:?}");
        peers.remove(0)
    }

    fn once_reason_is(&self, reason: &str) {
        eventually(reason, || self.peers().iter().any(|peer| peer["deliveryReason"] == reason).then_some(()));
    }

    /// A hook that waits, and is known to wait.
    fn waiter(&self, event: &str) -> Hook {
        let hook = self.claude.hook(event, "s-1", json!({"source": "startup"}));
        self.once_reason_is(WAITING);
        hook
    }

    fn send(&self, text: &str) -> Value {
        let id = self.peers()[0]["id"].clone();
        self.broker.http().post("/v1/send", &json!({"to": id, "text": text})).json()
    }

    fn assert_delivered_by_hook(&self, id: &Value) {
        assert_eq!(self.broker.message_once("delivered", id)["route"], "hook");
    }
}

const WAITING: &str = "hook: waiter connected";
const BUSY: &str = "hook: busy, with its next tool call or when its turn ends";

fn gone(pid: u32) {
    eventually("the process is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}
