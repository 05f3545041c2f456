//! One repository on several machines: the same remote URL, however it is written.

use crate::support::{
    Broker,
    container::open,
    events::Peer,
    folder,
    git::{self, git},
    http::Http,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// The session `instance` in the repository at `directory`.
fn session(broker: &Broker, directory: &Path, instance: &str) -> Peer {
    let git_dir = directory.join(".git").canonicalize().unwrap();
    let git = json!({"commonDir": git_dir, "head": git_dir.join("HEAD"), "repo": "engine"});
    Peer::register(&broker.http(), instance, json!({"cwd": directory, "git": git}))
}

/// A repository with one remote.
fn with_remote(directory: &Path, name: &str, url: &str) {
    git::repository(directory);
    git(directory, &["remote", "add", name, url]);
}

/// The name that the repository of `peer` has on all machines.
fn repository(broker: &Broker, peer: &Peer) -> Value {
    let told = broker.http().get("/v1/gateway/peers").json();
    let told = told["peers"].as_array().unwrap().iter().find(|told| told["id"] == peer.id.as_str());
    told.unwrap()["repository"].clone()
}

fn recipients(sent: &Value) -> BTreeSet<String> {
    sent["receipts"].as_array().unwrap().iter().map(|receipt| receipt["to"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn one_remote_has_one_name_however_it_is_written() {
    let (broker, place) = (Broker::start(), folder());
    let directory = place.path().join("engine");
    with_remote(&directory, "origin", "https://host.example/team/engine");
    let peer = session(&broker, &directory, "one");
    let name = repository(&broker, &peer);
    assert!(name.as_str().is_some_and(|name| name.len() == 32), "{name}");
    let named = |url: &str| {
        git(&directory, &["remote", "set-url", "origin", url]);
        repository(&broker, &peer)
    };
    for url in [
        "https://host.example/team/engine.git",
        "https://HOST.example/team/engine/",
        "https://ada:hunter2@host.example/team/engine.git",
        "https://hunter2@host.example:8443/team/engine.git?token=hunter2#top",
        "http://host.example//team/engine.git",
        "ssh://git@host.example/team/engine",
        "ssh://git@host.example:2222/team/engine.git",
        "git+ssh://git@host.example/team/engine.git",
        "git://host.example/team/engine.git",
        "git@host.example:team/engine.git",
        "git@host.example:/team/engine.git",
        "host.example:team/engine",
        "[git@host.example:2222]:team/engine.git",
    ] {
        assert_eq!(named(url), name, "{url}");
    }
    for url in ["https://other.example/team/engine", "https://host.example/team/motor", "git@host.example:engine"] {
        assert!(named(url).is_string() && named(url) != name, "{url}");
    }
    for url in [
        "/srv/engine.git",
        "../engine",
        "file:///srv/engine",
        "http://localhost:3000/a/b",
        "git@127.0.0.1:a/b",
        "https://",
        "host:",
    ] {
        assert_eq!(named(url), Value::Null, "{url} is one of this machine alone, or none");
    }
    let kept = fs::read(broker.database()).unwrap();
    let log = fs::read(broker.database().with_extension("db-wal")).unwrap_or_default();
    for bytes in [kept, log, broker.http().get("/v1/gateway/peers").body.into_bytes(), broker.log().into_bytes()] {
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"), "no password is stored or told");
    }
}

#[test]
fn remote_is_origin_or_the_only_one() {
    let (broker, place) = (Broker::start(), folder());
    let directory = place.path().join("engine");
    with_remote(&directory, "upstream", "https://host.example/team/engine");
    let peer = session(&broker, &directory, "one");
    let name = repository(&broker, &peer);
    assert!(name.is_string(), "it is the only one");
    git(&directory, &["remote", "add", "fork", "https://host.example/ada/engine"]);
    assert_eq!(repository(&broker, &peer), Value::Null, "neither of the two is more than the other");
    git(&directory, &["remote", "add", "origin", "https://host.example/team/engine"]);
    assert_eq!(repository(&broker, &peer), name);
    // As people write it by hand.
    let config = "[core]\n\tbare = false\n[Remote \"origin\"] # ours\n  fetch = x\n  URL = \"https://host.example/team/engine\" ; really\n";
    fs::write(directory.join(".git/config"), config).unwrap();
    assert_eq!(repository(&broker, &peer), name);
}

#[test]
fn repository_on_other_machines_is_reached_on_request() {
    let (broker, place) = (Broker::start(), folder());
    for (name, url) in [
        ("here", "https://host.example/team/engine"),
        ("clone", "git@host.example:team/engine.git"),
        ("other", "https://host.example/team/motor"),
    ] {
        with_remote(&place.path().join(name), "origin", url);
    }
    let [here, beside, clone, other] = [("here", "1"), ("here", "2"), ("clone", "3"), ("other", "4")]
        .map(|(directory, instance)| session(&broker, &place.path().join(directory), instance));
    let (name, others) = (repository(&broker, &here), repository(&broker, &other));
    let peers = json!([
        {"id": "same", "name": "same", "gitRepo": "engine", "repository": name},
        {"id": "other", "name": "other", "gitRepo": "motor", "repository": others},
        {"id": "none", "name": "none", "gitRepo": "engine"},
    ]);
    broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": peers})).json();

    let send = |to: &str| recipients(&here.over(&broker.http()).post("/v1/send", &json!({"to": to, "text": to})).json());
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(send("@repo"), ids(&[&beside.id]), "this machine alone, as ever");
    assert_eq!(send("@repo-everywhere"), ids(&[&beside.id, &clone.id, "same_desktop"]));
    let command =
        |arguments: &[&str]| broker.cli(arguments).arg("--json").current_dir(place.path().join("here")).output().unwrap();
    let sent = command(&["send", "@repo", "--everywhere", "The API breaks tomorrow"]);
    let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(recipients(&sent), ids(&[&here.id, &beside.id, &clone.id, "same_desktop"]));
    for (wrong, why) in [("@directory", "one machine"), (here.id.as_str(), "@repo")] {
        let refused = command(&["send", wrong, "--everywhere", "hello"]);
        assert_eq!(refused.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8_lossy(&refused.stdout).contains(why), "{wrong}");
    }
    let message = json!({"id": "m42-tdkxkb", "from": {"id": "same", "name": "same", "gitRepo": "engine"}, "to": here.id, "text": "Which port?",
        "sentAt": "2026-05-16T12:36:00.000Z", "expiresAt": "2126-05-16T12:36:00.000Z"});
    broker.http().post("/v1/gateway/receive", &json!({"machine": "desktop", "message": message})).json();
    assert!(send("@repo-everywhere ").contains("same_desktop"), "a message says nothing of the remote, and changes nothing");
    let peers = json!([{"id": "same", "name": "same", "gitRepo": "engine"}]);
    broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": peers})).json();
    assert_eq!(send(" @repo-everywhere"), ids(&[&beside.id, &clone.id]), "it has no remote any more");
}

#[test]
fn repositories_of_containers_count_only_inside() {
    let (broker, place) = (Broker::start(), folder());
    let directory = place.path().join("engine");
    with_remote(&directory, "origin", "https://host.example/team/engine");
    let outside = session(&broker, &directory, "outside");
    let peers = json!([{"id": "same", "name": "same", "gitRepo": "engine", "repository": repository(&broker, &outside)}]);
    broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": peers})).json();
    let one = Http::unix(&open(&broker, "one").join("broker.sock"));
    let git = json!({"commonDir": directory.join(".git"), "head": directory.join(".git/HEAD"), "repo": "engine"});
    let inside = Peer::register(&one, "inside", json!({"cwd": directory, "git": git}));
    assert_eq!(repository(&broker, &inside), Value::Null, "no path from inside is opened");
    let send = |http: &Http| recipients(&http.post("/v1/send", &json!({"to": "@repo-everywhere", "text": "hello"})).json());
    assert_eq!(send(&inside.over(&one)), BTreeSet::new());
    assert_eq!(send(&outside.over(&broker.http())), BTreeSet::from(["same_desktop".to_owned()]));
}

#[test]
fn only_names_are_taken_for_names() {
    let broker = Broker::start();
    for name in ["", "host.example/team/engine", &"A".repeat(32), &"0".repeat(31), "../../../../../../../../../../etc"] {
        let peers = json!([{"id": "k7xq2m", "name": "shop-api", "gitRepo": "engine", "repository": name}]);
        let refused = broker.http().post("/v1/gateway/announce", &json!({"machine": "desktop", "peers": peers}));
        assert_eq!(refused.code(), "invalid_request", "{name}");
    }
    assert_eq!(broker.stored(), (0, 0));
}

#[test]
fn strange_configuration_files_block_nobody() {
    let (mut broker, place) = (Broker::start(), folder());
    let directory = place.path().join("engine");
    with_remote(&directory, "origin", "https://host.example/team/engine");
    let (peer, config) = (session(&broker, &directory, "one"), directory.join(".git/config"));
    assert!(repository(&broker, &peer).is_string());
    let plain = fs::read(&config).unwrap();
    let huge = [b"# x\n".repeat(1 << 20), plain.clone()].concat();
    for content in [huge, b"\xff\xfe[remote \"origin\"]\n\turl = x:y\n".to_vec(), b"[remote \"origin\"\nurl".to_vec(), Vec::new()]
    {
        fs::write(&config, content).unwrap();
        assert_eq!(repository(&broker, &peer), Value::Null);
    }
    fs::remove_file(&config).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    assert_eq!(repository(&broker, &peer), Value::Null);
    if rustix::process::geteuid().is_root() {
        fs::remove_file(&config).unwrap();
        fs::write(&config, plain).unwrap();
        std::os::unix::fs::chown(&config, Some(65_534), None).unwrap();
        assert_eq!(repository(&broker, &peer), Value::Null, "another user's file");
    }
    assert!(broker.terminate().success());
}
