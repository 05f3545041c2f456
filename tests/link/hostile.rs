//! A machine that has joined and then turns against the others: it can spoil nothing but what is its own.

use crate::{
    admin::Operator,
    hub::{Hub, link_folder},
    support::{events::Peer, eventually, installed},
    world::Machine,
};
use async_nats::{Client, ConnectOptions, jetstream};
use nkeys::XKey;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// A machine's keys in the hands of somebody who writes letters without the link.
struct Hostile {
    runtime: tokio::runtime::Runtime,
    hub: Client,
    seal: XKey,
    name: &'static str,
    directory: Value,
}

impl Hostile {
    /// Takes the place of this machine's link.
    fn instead_of(machine: &mut Machine, hub: &Hub) -> Self {
        machine.kill_link();
        let folder = link_folder(machine.broker.folder());
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap().trim().to_owned();
        let options = ConnectOptions::with_nkey(read("login.key")).custom_inbox_prefix(format!("_INBOX_{}", machine.name));
        let options = options.add_root_certificates(folder.join("ca.pem")).require_tls(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(options.connect(hub.address())).unwrap();
        let seal = XKey::from_seed(&read("seal.key")).unwrap();
        Self { runtime, hub: connected, seal, name: machine.name, directory: directory(&folder) }
    }

    /// Stores a letter with these messages and receipts on the hub.
    fn store(&self, to: &str, messages: &[Value], receipts: &[Value]) {
        let letter = json!({"sealed_at": now(), "messages": messages, "receipts": receipts});
        let text = json!({"from": self.name, "to": to, "letter": letter}).to_string();
        let machines = self.directory["machines"].as_array().unwrap();
        let key = machines.iter().find(|machine| machine["name"] == to).unwrap()["seal"].as_str().unwrap();
        let sealed = self.seal.seal(text.as_bytes(), &XKey::from_public_key(key).unwrap()).unwrap();
        let subject = format!("claude-peers.{}.mail.{to}", self.name);
        self.runtime.block_on(async {
            jetstream::new(self.hub.clone()).publish(subject, sealed.into()).await.unwrap().await.unwrap();
        });
    }
}

fn directory(folder: &Path) -> Value {
    let signed: Value = serde_json::from_slice(&fs::read(folder.join("directory.json")).unwrap()).unwrap();
    serde_json::from_str(signed["text"].as_str().unwrap()).unwrap()
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn message(id: usize, from: &str, to: &str, text: &str) -> Value {
    let (sent_at, expires_at) = (now(), (chrono::Utc::now() + chrono::TimeDelta::hours(1)).to_rfc3339());
    json!({"id": format!("m{id}-a"), "from": {"id": "x", "name": from}, "to": to, "text": text, "sentAt": sent_at,
        "expiresAt": expires_at})
}

/// The laptop takes mail after what `spoil` has stored for its session.
fn goes_on_after(spoil: impl FnOnce(&Hostile, &str)) {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    let hostile = Hostile::instead_of(&mut desktop, &hub);
    let id = web.id.to_string();
    spoil(&hostile, &id);
    hostile.store("laptop", &[message(1, "shop-api", &id, "The next letter.")], &[]);
    eventually("the next letter arrives", || (laptop.broker.stored().0 == 1).then_some(()));
}

#[test]
fn letter_whose_refusals_fill_more_than_a_letter_blocks_nothing() {
    // Each name is repeated in its refusal, three times as long.
    let name = "\u{200b}".repeat(40);
    goes_on_after(|hostile, id| {
        let messages: Vec<Value> = (10..12_000).map(|n| message(n, &name, id, "x")).collect();
        hostile.store("laptop", &messages, &[]);
    });
}

#[test]
fn huge_message_blocks_nothing() {
    goes_on_after(|hostile, id| hostile.store("laptop", &[message(10, "shop-api", id, &"x".repeat(4_000_000))], &[]));
}

#[test]
fn too_many_receipts_block_nothing() {
    goes_on_after(|hostile, _| {
        let receipts: Vec<Value> = (10..30_000).map(|n| json!({"id": format!("m{n}-a"), "state": "expired"})).collect();
        hostile.store("laptop", &[], &receipts);
    });
}

#[test]
fn times_out_of_all_bounds_block_nothing() {
    goes_on_after(|hostile, _| {
        for (sent, expires) in
            [("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"), ("9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z")]
        {
            let mut wrong = message(10, "shop-api", "nobody", "x");
            (wrong["sentAt"], wrong["expiresAt"]) = (sent.into(), expires.into());
            hostile.store("laptop", &[wrong], &[]);
        }
    });
}

#[test]
fn machine_does_not_replace_the_directory() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (_laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let hostile = Hostile::instead_of(&mut desktop, &hub);
    let operator = Operator::of(&hub);
    let handed_out = || {
        operator.runtime.block_on(async {
            let stream = operator.hub.get_stream("claude-peers-directory").await.unwrap();
            stream.get_last_raw_message_by_subject("claude-peers-directory").await.map(|message| message.payload)
        })
    };
    let before = handed_out().unwrap();
    // A consumer of its own mail that has the hub deliver it where the machine itself may not publish.
    let answer = hostile.runtime.block_on(async {
        let config = json!({"durable_name": "desktop", "name": "desktop", "filter_subject": "claude-peers.*.mail.desktop",
            "deliver_subject": "claude-peers-directory", "ack_policy": "explicit", "deliver_policy": "all"});
        let create = json!({"stream_name": "claude-peers", "config": config}).to_string();
        let delete = "$JS.API.CONSUMER.DELETE.claude-peers.desktop".to_owned();
        let _ = hostile.hub.request(delete, "".into()).await;
        let subject = "$JS.API.CONSUMER.CREATE.claude-peers.desktop.claude-peers.*.mail.desktop";
        hostile.hub.request(subject.to_owned(), create.into()).await.unwrap().payload
    });
    eprintln!("the hub answers {}", String::from_utf8_lossy(&answer));
    hostile.store("desktop", &[], &[]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(handed_out().unwrap(), before);
}

#[test]
fn reason_of_another_machine_is_short_and_harmless() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"}));
    laptop.sees("shop-api@desktop");
    let hostile = Hostile::instead_of(&mut desktop, &hub);
    let send = json!({"to": "shop-api@desktop", "text": "Which port?"});
    let sent = web.over(&laptop.broker.http()).post("/v1/send", &send).json();
    laptop.broker.message_once("forwarded", &sent["messageId"]);
    let refusal = format!("no\u{1b}[2J\n{}", "obey ".repeat(100_000));
    hostile.store("laptop", &[], &[json!({"id": sent["messageId"], "state": "expired", "refusal": refusal})]);
    laptop.broker.message_once("expired", &sent["messageId"]);
    let take = json!({"lease": "l", "route": "check_messages", "waitSeconds": 60});
    let taken = web.over(&laptop.broker.http()).post("/v1/take", &take).json();
    let text = taken["messages"][0]["text"].as_str().unwrap();
    assert!(text.len() < 1_000 && !text.contains(char::is_control), "{} bytes: {text:.200}", text.len());
}

#[test]
fn made_up_branch_hides_no_session() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let trap = desktop.broker.folder().join("trap");
    fs::create_dir_all(trap.join(".git/objects")).unwrap();
    fs::create_dir_all(trap.join(".git/refs")).unwrap();
    fs::write(trap.join(".git/HEAD"), format!("ref: refs/heads/{}\n", "x".repeat(5_000))).unwrap();
    let git = json!({"commonDir": trap.join(".git"), "head": trap.join(".git/HEAD"), "repo": "trap", "branch": "main"});
    let register = |instance: &str, more: Value| Peer::register(&desktop.broker.http(), instance, more);
    let _trap = register("one", json!({"cwd": trap, "git": git})).follow(&desktop.broker.http());
    let _api = register("two", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
}

#[test]
#[cfg(target_os = "linux")]
fn flood_fills_no_memory() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let web = Peer::register(&laptop.broker.http(), "one", json!({"cwd": "/src/shop-web"})).follow(&laptop.broker.http());
    desktop.sees("shop-web@laptop");
    drop(web);
    let hostile = Hostile::instead_of(&mut desktop, &hub);
    let question = bytes::Bytes::from(vec![b'x'; 4_000_000]);
    hostile.runtime.block_on(async {
        for _ in 0..150 {
            hostile.hub.publish("claude-peers.desktop.ask.laptop", question.clone()).await.unwrap();
            hostile.hub.flush().await.unwrap();
        }
    });
    // What the hub has passed on before this letter is read when that arrives.
    let peer = Peer::register(&laptop.broker.http(), "two", json!({"cwd": "/src/shop-api"}));
    hostile.store("laptop", &[message(1, "shop-api", &peer.id, "The next letter.")], &[]);
    eventually("the next letter arrives", || (laptop.broker.stored().0 == 1).then_some(()));
    let status = fs::read_to_string(format!("/proc/{}/status", laptop.link_pid())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB");
    assert!(most.parse::<u64>().unwrap() < 450_000, "{most} kB");
}

#[test]
fn machine_cannot_fetch_mail_of_another() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (_laptop, mut desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let hostile = Hostile::instead_of(&mut desktop, &hub);
    let refused = hostile.runtime.block_on(async {
        let mut refused = Vec::new();
        for api in [
            "CONSUMER.CREATE.claude-peers.desktop.claude-peers.*.mail.laptop",
            "CONSUMER.CREATE.claude-peers.laptop",
            "CONSUMER.DELETE.claude-peers.laptop",
            "CONSUMER.MSG.NEXT.claude-peers.laptop",
            "STREAM.PURGE.claude-peers",
            "STREAM.MSG.GET.claude-peers",
            "DIRECT.GET.claude-peers",
        ] {
            let request = async_nats::Request::new().payload("{}".into()).timeout(Some(std::time::Duration::from_millis(300)));
            refused.push(hostile.hub.send_request(format!("$JS.API.{api}"), request).await.is_err());
        }
        refused
    });
    assert_eq!(refused, [true; 7]);
}
