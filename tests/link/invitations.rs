//! Machines join and leave.

use crate::{
    admin::Operator,
    hub::{Hub, Invitation, join, link_folder, on, said},
    support::{Broker, broker::signal, events::Peer, eventually, folder, installed},
    world::{LINK, Machine},
};
use async_nats::ConnectOptions;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType, XKey};
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    thread,
    time::Duration,
};

/// Asserts that it failed, with these words and without another.
fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert!(!output.status.success() && words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
}

#[test]
fn invitation_works_once() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let (first, second) = (Broker::start(), Broker::start());
    let mut invitation = hub.invite("laptop");
    let joined = join(&first, &[&invitation.line]);
    assert!(joined.status.success() && said(&joined).contains("has joined as laptop"), "{}", said(&joined));
    assert!(invitation.end().contains("laptop has joined"));
    refused(&join(&second, &[&invitation.line]), &["used up, withdrawn or too old", "link invite laptop"]);
    assert!(!link_folder(second.folder()).join("link.json").exists());
    refused(&join(&first, &[&invitation.line]), &["has joined already, as laptop", "link leave"]);
    refused(&hub.owner(&["invite", "laptop"]), &["laptop has joined already", "link revoke laptop"]);
}

#[test]
fn interrupted_invitation_is_withdrawn() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let laptop = Broker::start();
    // Closing the terminal too.
    for kind in ["INT", "HUP"] {
        let mut invitation = hub.invite("laptop");
        refused(&hub.owner(&["invite", "laptop"]), &["laptop is invited already"]);
        signal(invitation.child.id(), kind);
        let said = invitation.end();
        assert!(said.contains("the invitation is withdrawn"), "{said}");
        refused(&join(&laptop, &[&invitation.line]), &["used up, withdrawn or too old"]);
    }
    hub.join("laptop", &laptop);
}

#[test]
fn unusable_invitation_is_refused_in_a_sentence() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let laptop = Broker::start();
    let Invitation { line, .. } = &hub.invite("laptop");
    refused(&join(&laptop, &[&line[..line.len() - 9]]), &["a part of it is missing or changed", "copy the whole line"]);
    refused(&join(&laptop, &["hello"]), &["does not begin with claude-peers-invitation"]);
    refused(&join(&laptop, &[&line.replacen("/1/", "/2/", 1)]), &["it is of another version"]);
}

#[test]
fn invitation_for_another_hub_is_refused() {
    if !installed("nats-server") {
        return;
    }
    let (mut hub, other) = (Hub::start(), Hub::set_up());
    let laptop = Broker::start();
    let Invitation { line, .. } = &hub.invite("laptop");
    // Another hub answers at its address, with a certificate of its own.
    hub.kill();
    for file in ["hub.pem", "hub.key"] {
        fs::copy(other.folder().join("hub").join(file), hub.folder().join("hub").join(file)).unwrap();
    }
    hub.launch();
    refused(&join(&laptop, &[line]), &[&format!("{} is not the hub that it should be", hub.address())]);
    hub.kill();
    refused(&join(&laptop, &[line]), &["cannot be reached", "Connection refused"]);
}

#[test]
fn server_that_is_no_hub_is_named() {
    if !installed("nats-server") {
        return;
    }
    // First one without TLS, then one without JetStream.
    let mut hub = Hub::set_up();
    let config = hub.folder().join("hub/nats-server.conf");
    let written = fs::read_to_string(&config).unwrap();
    let without: Vec<&str> = written.lines().filter(|line| !line.starts_with("tls ")).collect();
    fs::write(&config, without.join("\n")).unwrap();
    hub.launch();
    refused(&hub.owner(&["invite", "laptop"]), &["is not the hub that it should be"]);
    hub.kill();
    let without = written.replace("jetstream: enabled", "jetstream: disabled");
    fs::write(&config, without).unwrap();
    hub.launch();
    refused(&hub.owner(&["invite", "laptop"]), &["JetStream", "2.9.10 or later"]);
}

#[test]
fn hub_that_does_not_run_is_named() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::set_up();
    refused(&hub.owner(&["invite", "laptop"]), &["the hub does not run on this machine", "claude-peers-hub.service"]);
    refused(&hub.owner(&["init", "hub.example"]), &["has a hub already", "--folder"]);
    refused(&hub.owner(&["init", "no host", "--folder", "/tmp/x"]), &["\"no host\" is no address of a hub"]);
    // Something else has its port.
    let _other = TcpListener::bind(hub.address()).unwrap();
    fs::write(hub.folder().join("hub/nats-server.pid"), "1").unwrap();
    let broker = Broker::start();
    refused(&on(&broker, &["status"]), &["has not joined", "link invite"]);
}

#[test]
fn list_and_status_say_how_it_is() {
    if !installed("nats-server") {
        return;
    }
    let mut hub = Hub::start();
    let (laptop, desktop) = (Machine::linked("laptop", &hub), Machine::linked("desktop", &hub));
    let _api = Peer::register(&desktop.broker.http(), "one", json!({"cwd": "/src/shop-api"})).follow(&desktop.broker.http());
    laptop.sees("shop-api@desktop");
    let list = on(&laptop.broker, &["list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let expected =
        json!([{"name": "laptop", "isThis": true, "sessions": 0}, {"name": "desktop", "isThis": false, "sessions": 1}]);
    assert_eq!(list, expected);
    let owner = hub.owner(&["list"]);
    let text = String::from_utf8(owner.stdout).unwrap();
    assert!(text.lines().count() == 2 && text.contains("desktop") && text.contains("joined"), "{text}");

    let status = on(&laptop.broker, &["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(status.status.success() && text.contains("ok      machine: laptop, one of 2"), "{text}");
    assert!(text.contains("letters wait there for this machine") && text.contains("ok      broker: answers"), "{text}");
    hub.kill();
    let status = on(&laptop.broker, &["status"]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(!status.status.success() && text.contains("problem hub: the hub at"), "{text}");
}

#[test]
fn machine_leaves() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let mut laptop = Machine::linked("laptop", &hub);
    laptop.kill_link();
    let left = on(&laptop.broker, &["leave"]);
    assert!(left.status.success() && said(&left).contains("link revoke laptop"), "{}", said(&left));
    assert_eq!(fs::read_dir(link_folder(laptop.broker.folder())).unwrap().count(), 0, "no key stays");
    laptop.link();
    laptop.link_says("this machine has not joined any others");
}

#[test]
fn second_machine_with_the_same_line_is_not_let_in() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let mut invitation = hub.invite("laptop");
    // Two who have the line. The first is let in, and then the second asks.
    let body = BASE64URL_NOPAD.decode(invitation.line.rsplit_once('/').unwrap().1.as_bytes()).unwrap();
    let key = |from: usize| <[u8; 32]>::try_from(&body[from..from + 32]).unwrap();
    let login = KeyPair::new_from_raw(KeyPairType::User, key(0)).unwrap();
    let secret = XKey::new_from_raw(key(32));
    let sealed = |text: Value| Bytes::from(secret.seal(text.to_string().as_bytes(), &secret).unwrap());
    let keys = || json!({"login": KeyPair::new_user().public_key(), "seal": XKey::new().public_key()});
    let (first, second) = (keys(), keys());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = ConnectOptions::with_nkey(login.seed().unwrap()).custom_inbox_prefix("_INBOX_JOIN_laptop");
        let options = options.add_root_certificates(hub.folder().join("hub/ca.pem")).require_tls(true);
        let client = options.connect(hub.address()).await.unwrap();
        let subject = "claude-peers-join.laptop";
        client.request(subject, sealed(json!({"join": first}))).await.unwrap();
        client.publish_with_reply(subject, "_INBOX_JOIN_laptop.x", sealed(json!({"join": second}))).await.unwrap();
        client.publish(subject, sealed(json!("joined"))).await.unwrap();
        client.flush().await.unwrap();
    });
    let said = invitation.end();
    assert!(said.contains("another machine asked to join with the same line"), "{said}");
    let owner: Value = serde_json::from_slice(&fs::read(hub.folder().join("owner.json")).unwrap()).unwrap();
    assert_eq!(owner["machines"][0]["login"], first["login"]);
}

#[test]
fn revoking_withdraws_an_invitation() {
    if !installed("nats-server") {
        return;
    }
    let hub = Hub::start();
    let invitation = hub.invite("laptop");
    hub.revoke("laptop");
    refused(&join(&Broker::start(), &[&invitation.line]), &["used up, withdrawn or too old"]);
}

#[test]
fn slow_change_undoes_no_later_one() {
    if !installed("nats-server") {
        return;
    }
    // The first change takes long enough to meet the second.
    let apply = "if mv slow taken; then i=0; while grep -q desktop ../owner.json && [ $i -lt 60 ]; do sleep 0.05; i=$((i+1)); done; \
        sleep 1; fi 2>/dev/null; nats-server --signal reload=nats-server.pid";
    let mut hub = Hub::set_up_on(&["127.0.0.1"], &["--apply", apply]);
    hub.launch();
    hub.join("desktop", &Broker::start());
    fs::write(hub.folder().join("hub/slow"), "").unwrap();
    std::thread::scope(|scope| {
        let inviting = scope.spawn(|| hub.invite("laptop"));
        eventually("the first change is under way", || hub.folder().join("hub/taken").exists().then_some(()));
        hub.revoke("desktop");
        let _invitation = inviting.join().unwrap();
        let operator = Operator::of(&hub);
        let handed_out = operator.runtime.block_on(async {
            let stream = operator.hub.get_stream("claude-peers-directory").await.unwrap();
            stream.get_last_raw_message_by_subject("claude-peers-directory").await.unwrap().payload
        });
        let handed_out = String::from_utf8_lossy(&handed_out).into_owned();
        assert!(!handed_out.contains("desktop"), "a machine that was revoked is handed out: {handed_out}");
    });
}

#[test]
fn words_of_a_hub_steer_no_terminal() {
    let (listener, home) = (TcpListener::bind("127.0.0.1:0").unwrap(), folder());
    let address = format!("nats://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let info = json!({"server_id": "x", "version": "2.10.0", "max_payload": 1_000_000, "proto": 1, "headers": true, "nonce": "x"});
            write!(connection, "INFO {info}\r\n-ERR 'no\u{1b}[2Jway'\r\n").unwrap();
            drop(connection.read(&mut [0; 4_096]));
        }
    });
    let user = KeyPair::new_user();
    let text = format!(
        "-----BEGIN NATS USER JWT-----\nx.y.z\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    let credentials = home.path().join("a.creds");
    fs::write(&credentials, text).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(LINK);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.path()).args(words).output().unwrap()
    };
    let made = run(&["init", &address, "--credentials", credentials.to_str().unwrap()]);
    assert!(made.status.success(), "{}", said(&made));
    let said = said(&run(&["invite", "laptop"]));
    assert!(said.contains("way") && !said.contains('\u{1b}'), "{said:?}");
}

#[test]
fn program_with_the_number_of_a_killed_hub_gets_no_signal() {
    if !installed("nats-server") {
        return;
    }
    let mut hub = Hub::start();
    hub.kill();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(hub.folder().join("hub/nats-server.pid"), other.id().to_string()).unwrap();
    refused(&hub.owner(&["invite", "laptop"]), &["cannot be reached"]);
    let ended = other.try_wait().unwrap();
    drop(other.kill());
    drop(other.wait());
    assert_eq!(ended, None);
}

#[test]
fn connection_that_breaks_late_is_tried_again() {
    if !installed("nats-server") {
        return;
    }
    // The line to the hub holds up the first connection, then drops it, as the hub does with a client whose frames get lost.
    let (mut hub, line) = (Hub::set_up(), TcpListener::bind("127.0.0.1:0").unwrap());
    let owner = hub.folder().join("owner.json");
    let written = fs::read_to_string(&owner).unwrap();
    let address = line.local_addr().unwrap().to_string();
    fs::write(&owner, written.replace(&hub.address(), &address)).unwrap();
    hub.launch();
    let behind = hub.address();
    thread::spawn(move || {
        let slow = line.accept().unwrap();
        thread::sleep(Duration::from_secs(3)); // the line's slowness, not a wait
        drop(slow);
        for near in line.incoming() {
            let (near, far) = (near.unwrap(), TcpStream::connect(&behind).unwrap());
            carry(near.try_clone().unwrap(), far.try_clone().unwrap());
            carry(far, near);
        }
    });
    let invitation = hub.invite("laptop");
    assert!(!invitation.line.is_empty());
}

/// Carries bytes one way until one of the two ends.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        drop(io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Both));
    });
}
