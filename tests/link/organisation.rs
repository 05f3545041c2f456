//! A hub that an organisation runs: its operators hand out credentials, and nobody else touches its configuration.

use crate::{
    hub::{Hub, join, on, said},
    support::{Broker, events::Peer, eventually, folder, installed, unused_port},
    world::{LINK, Machine},
};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::{fs, path::PathBuf, process::Command};

/// The operators of a NATS server.
struct Operators {
    folder: tempfile::TempDir,
    operator: KeyPair,
    account: KeyPair,
}

impl Operators {
    fn new() -> Self {
        Self { folder: folder(), operator: KeyPair::new_operator(), account: KeyPair::new_account() }
    }

    /// The configuration of their server.
    fn configuration(&self, port: u16) -> String {
        self.configuration_with(port, "")
    }

    /// The same, with further settings of JetStream.
    fn configuration_with(&self, port: u16, jetstream: &str) -> String {
        let operator = token(&self.operator, &self.operator, json!({"type": "operator", "version": 2}));
        let limits: Value = [
            "subs",
            "data",
            "payload",
            "imports",
            "exports",
            "conn",
            "leaf",
            "mem_storage",
            "disk_storage",
            "streams",
            "consumer",
        ]
        .iter()
        .map(|limit| ((*limit).to_owned(), json!(-1)))
        .chain([("wildcards".to_owned(), json!(true))])
        .collect();
        let system = KeyPair::new_account();
        let of = |account: &KeyPair, limits: &Value| {
            token(&self.operator, account, json!({"type": "account", "version": 2, "limits": limits}))
        };
        // JetStream's limits are not for the system's own account.
        let (account, server) =
            (of(&self.account, &limits), of(&system, &json!({"subs": -1, "data": -1, "payload": -1, "conn": -1})));
        let system = system.public_key();
        format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?} {jetstream} }}\noperator: {operator}\nsystem_account: {system}\n\
             resolver: MEMORY\nresolver_preload {{ {}: {account}, {system}: {server} }}\n",
            self.folder.path().join("store"),
            self.account.public_key()
        )
    }

    /// A file of credentials that allow this.
    fn credentials(&self, name: &str, publish: &[String], subscribe: &[String]) -> PathBuf {
        let user = KeyPair::new_user();
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {"allow": publish}, "sub": {"allow": subscribe}});
        let (jwt, seed) = (token(&self.account, &user, claims), user.seed().unwrap());
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let file = self.folder.path().join(format!("{name}.creds"));
        fs::write(&file, text).unwrap();
        file
    }

    /// Credentials for a machine: what the program says that it needs, and nothing else.
    fn machine(&self, name: &str) -> PathBuf {
        let printed = Command::new(LINK).args(["permissions", name]).output().unwrap();
        let text = String::from_utf8(printed.stdout).unwrap();
        let (publish, subscribe) = text.split_once("subscribe\n").unwrap();
        let list = |text: &str| text.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect::<Vec<_>>();
        self.credentials(name, &list(publish), &list(subscribe))
    }
}

/// A JWT as NATS reads it.
fn token(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let claims =
        json!({"jti": "1", "iat": 1, "iss": issuer.public_key(), "name": "test", "sub": subject.public_key(), "nats": nats});
    let signed = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[test]
fn machines_talk_over_the_hub_of_an_organisation() {
    if !installed("nats-server") {
        return;
    }
    let operators = Operators::new();
    // What docs/link.md says that the owner needs.
    let publish = ["claude-peers-directory", "$JS.API.>", "_INBOX_laptop.>", "_INBOX_desktop.>"].map(str::to_owned);
    let owner = operators.credentials("owner", &publish, &["claude-peers-join.*", "_INBOX_OWNER.>"].map(str::to_owned));
    let hub = Hub::of_others(&owner, |port| operators.configuration(port));
    let machines = ["laptop", "desktop"].map(|name| {
        let (broker, mut invitation) = (Broker::start(), hub.invite(name));
        let credentials = operators.machine(name);
        let joined = join(&broker, &[&invitation.line, "--credentials", credentials.to_str().unwrap()]);
        assert!(joined.status.success(), "{}\n{}", said(&joined), invitation.end());
        assert!(invitation.end().contains("has joined"));
        Machine::joined(name, broker)
    });
    let [laptop, desktop] = machines;
    let http = desktop.broker.http();
    let api = Peer::register(&http, "one", json!({"cwd": "/src/shop-api"}));
    let _stream = api.follow(&http);
    laptop.sees("shop-api@desktop");
    let sent = laptop.send("shop-api@desktop", "Which port?");
    laptop.broker.message_once("forwarded", &sent["messageId"]);
    eventually("it arrives", || (desktop.broker.stored().0 == 1).then_some(()));
    let status = on(&laptop.broker, &["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert!(!laptop.link_log().contains("Permissions Violation"), "{}", laptop.link_log());
    assert!(!desktop.link_log().contains("Permissions Violation"), "{}", desktop.link_log());

    // Its credentials are the operators' to revoke, but nothing of it gets in.
    hub.revoke("desktop");
    laptop.sees_no_more("shop-api@desktop");
    desktop.send("cli@laptop", "Still here?");
    let sent = laptop.send("shop-api@desktop", "Still there?");
    laptop.broker.message_once("expired", &sent["messageId"]);
}

#[test]
fn machine_talks_through_a_leaf_node() {
    if !installed("nats-server") {
        return;
    }
    let operators = Operators::new();
    let owner = operators.credentials("owner", &[">".to_owned()], &[">".to_owned()]);
    let leaves = unused_port();
    let listen = format!("leafnodes {{ listen: \"127.0.0.1:{leaves}\" }}\n");
    let hub = Hub::of_others(&owner, |port| operators.configuration_with(port, ", domain: site") + &listen);
    // The leaf may do all in its account, and lets in whoever reaches it: only the seals tell who has sent something.
    let leafs = operators.machine("laptop");
    let remote = format!("{{ url: \"nats://127.0.0.1:{leaves}\", credentials: {owner:?} }}");
    let leaf = Hub::serving(|port| format!("listen: \"127.0.0.1:{port}\"\nleafnodes {{ remotes: [{remote}] }}\n"));
    let joined = |name: &'static str, words: &[&str]| {
        let (broker, mut invitation) = (Broker::start(), hub.invite(name));
        let joined = join(&broker, &[&[invitation.line.as_str()], words].concat());
        assert!(joined.status.success(), "{}\n{}", said(&joined), invitation.end());
        Machine::joined(name, broker)
    };
    let (address, desktops) = (format!("nats://{}", leaf.address()), operators.machine("desktop"));
    let through = ["--credentials", leafs.to_str().unwrap(), "--leaf", &address, "--domain", "site"];
    let (laptop, desktop) = (joined("laptop", &through), joined("desktop", &["--credentials", desktops.to_str().unwrap()]));
    let peers = [&laptop, &desktop]
        .map(|machine| Peer::register(&machine.broker.http(), "one", json!({"cwd": format!("/src/of-{}", machine.name)})));
    let _streams = [peers[0].follow(&laptop.broker.http()), peers[1].follow(&desktop.broker.http())];
    laptop.sees("of-desktop@desktop");
    desktop.sees("of-laptop@laptop");
    laptop.send("of-desktop@desktop", "Which port?");
    desktop.send("of-laptop@laptop", "8080");
    eventually("both arrive", || (laptop.broker.stored().0 == 2 && desktop.broker.stored().0 == 2).then_some(()));
}
