//! The user is told when mail waits for a peer; the mail stays where it is.

use crate::support::{
    Broker,
    events::{Events, Peer},
    eventually,
};
use serde_json::{Value, json};
use std::thread;

struct Scene {
    broker: Broker,
    from: Peer,
    to: Peer,
    _stream: Events,
}

impl Scene {
    fn new() -> Self {
        let broker = Broker::start();
        let [from, to] = ["from", "to"].map(|name| Peer::register(&broker.http(), name, json!({})));
        let stream = to.follow(&broker.http());
        Self { broker, from, to, _stream: stream }
    }

    fn send(&self, text: &str) -> Value {
        let message = json!({"to": self.to.id, "text": text});
        self.from.over(&self.broker.http()).post("/v1/send", &message).json()["messageId"].clone()
    }

    fn path(&self, query: &str) -> String {
        format!("/v1/peers/{}/mail?{query}", self.to.id)
    }

    fn newest(&self, query: &str) -> Value {
        self.broker.http().get(&self.path(query)).json()["newest"].clone()
    }

    /// The same, asked by the session itself.
    fn own_newest(&self, query: &str) -> Value {
        self.to.over(&self.broker.http()).get(&self.path(query)).json()["newest"].clone()
    }

    /// Whether the list says that a doorbell rings for the peer.
    fn has_doorbell(&self) -> bool {
        let peer = self.broker.peers().into_iter().find(|peer| peer["id"] == *self.to.id).unwrap();
        peer["deliveryReason"] == "pull: a doorbell tells it that mail waits"
    }

    /// The peer reads its oldest message.
    fn reads_one(&self, lease: &str) {
        let http = self.to.over(&self.broker.http());
        let take = json!({"lease": lease, "route": "check_messages", "maxBytes": 1});
        let id = http.post("/v1/take", &take).json()["messages"][0]["id"].clone();
        let read = json!({"messages": [{"id": id, "outcome": "delivered"}], "route": "check_messages", "lease": lease});
        assert_eq!(http.post("/v1/acknowledge", &read).json()["changed"], 1);
    }
}

#[test]
fn waiting_mail_is_told_and_stays() {
    let scene = Scene::new();
    assert_eq!(scene.newest(""), Value::Null);
    let (first, second) = (scene.send("first"), scene.send("second"));
    assert_eq!(scene.newest("waitSeconds=600"), second);
    let answer = scene.broker.http().get(&scene.path("")).json();
    assert_eq!((&answer["peer"]["id"], &answer["peer"]["waiting"]), (&json!(scene.to.id), &json!(2)));
    let after = |id: &Value| format!("after={}", id.as_str().unwrap());
    assert_eq!(scene.newest(&after(&first)), Value::Null, "the first still waits");
    scene.reads_one("a");
    assert_eq!(scene.newest(&after(&first)), second);
    scene.reads_one("b");
    assert_eq!(scene.newest(""), Value::Null);
}

#[test]
fn wait_ends_with_mail_or_the_peer() {
    let scene = Scene::new();
    let wait = |scene: &Scene| {
        let (http, path) = (scene.broker.http(), scene.path("waitSeconds=600"));
        thread::spawn(move || http.get(&path).json())
    };
    let waiting = wait(&scene);
    let id = scene.send("hello");
    assert_eq!(waiting.join().unwrap()["newest"], id);
    scene.reads_one("a");
    let waiting = wait(&scene);
    scene.to.over(&scene.broker.http()).post("/v1/unregister", &json!({})).json();
    assert_eq!(waiting.join().unwrap()["peer"]["status"], "gone");
}

#[test]
fn session_may_not_watch_anothers_mail() {
    let scene = Scene::new();
    let answer = scene.from.over(&scene.broker.http()).get(&scene.path(""));
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    let nobody = scene.broker.http().get("/v1/peers/nobody/mail");
    assert_eq!((nobody.status, nobody.code().as_str()), (404, "peer_not_found"));
}

#[test]
fn session_is_told_of_its_own_mail_once() {
    let scene = Scene::new();
    let first = scene.send("first");
    assert_eq!(scene.own_newest(""), first);
    let second = scene.send("second");
    assert_eq!(scene.own_newest(""), Value::Null, "it was told of the first, which still waits");
    assert_eq!(scene.newest(""), second, "the user is told again");
    scene.reads_one("a");
    assert_eq!(scene.own_newest("waitSeconds=600"), second);
    scene.reads_one("b");
    assert_eq!(scene.own_newest(""), Value::Null);
}

#[test]
fn list_shows_a_doorbell_while_it_waits() {
    let scene = Scene::new();
    assert!(!scene.has_doorbell());
    let (http, path) = (scene.to.over(&scene.broker.http()), scene.path("waitSeconds=600"));
    let waiting = thread::spawn(move || http.get(&path).json());
    eventually("the list shows it", || scene.has_doorbell().then_some(()));
    let id = scene.send("hello");
    assert_eq!(waiting.join().unwrap()["newest"], id);
    eventually("the list shows it no more", || (!scene.has_doorbell()).then_some(()));
}
