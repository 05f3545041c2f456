//! The user is told when mail waits for a peer; the mail stays where it is.

use crate::support::{
    Broker,
    events::{Events, Peer},
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
