//! A copy that no package manager owns updates itself and restarts the broker.

use crate::{
    Test,
    copies::{self, VERSION},
    machine::{Machine, WEB as URL},
    prepare::{Prepared, Release},
    release::{Entry, archive_name, files, key, pack, sign, with_sums},
    upgrade::ask_for_ever,
};
use std::fs;
use tar::EntryType;

pub const TESTS: &[(&str, Test)] = &[("update::copy_updates_itself_and_refuses_nobody", copy_updates_itself_and_refuses_nobody)];

const BIN: &str = "/home/ada/claude-peers";
/// Starts a release server in the machine that offers this version.
fn offer(machine: &Machine, version: &str) {
    let programs = copies::programs(version).into_iter();
    let entries: Vec<_> = programs.map(|(name, bytes)| Entry(name.to_owned(), EntryType::Regular, bytes)).collect();
    let name = archive_name(version);
    let archive = sign(&pack(&entries), &key(1), &name);
    for (path, content) in files(URL, version, &with_sums(&[(name, archive)])) {
        let path = machine.path(&format!("/srv/www{path}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(machine.path("/srv/key.pub"), key(1).verifying_key().to_bytes()).unwrap();
    machine.serve();
}

fn copy_updates_itself_and_refuses_nobody(prepared: &Prepared) {
    let machine = Machine::boot(prepared, Release::Bookworm);
    let newer = copies::version_of('9');
    copies::put(&machine, "ada", BIN, VERSION);
    offer(&machine, &newer);
    machine.ada(&format!("{BIN}/claude-peers setup")).ok();
    machine.override_unit("ada", "claude-peers.service", "[Service]\nEnvironment=CLAUDE_PEERS_RATE_LIMIT=0\n");
    let broker = || machine.ada(&format!("{BIN}/claude-peers status --json")).json()["broker"].clone();
    let before = broker();
    assert_eq!(before["version"], VERSION);

    let update = format!("{BIN}/claude-peers update --json --from {URL} --key /srv/key.pub");
    let answer = std::thread::scope(|scope| {
        let unix = "--unix-socket $XDG_RUNTIME_DIR/claude-peers/broker.sock http://localhost/v1/status";
        for (name, address) in [("unix", unix), ("tcp", "http://127.0.0.1:7899/health")] {
            let machine = &machine;
            scope.spawn(move || machine.ada(&ask_for_ever(name, address)).ok());
        }
        let enough = "until [ $(cat ~/unix | wc -l) -gt $1 ] && [ $(cat ~/tcp | wc -l) -gt $1 ]; do sleep 0.02; done 2>/dev/null";
        machine.ada(&format!("set 20; {enough}")).ok();
        let answer = machine.ada(&update);
        machine.ada(&format!("set $(($(cat ~/unix ~/tcp | wc -l) + 20)); {enough}; touch ~/stop")).ok();
        answer
    });
    assert_eq!(
        (answer.code, &answer.json()["updated"], &answer.json()["broker"]["state"]),
        (0, &true.into(), &"restarted".into()),
        "{answer:?}"
    );
    for name in ["unix", "tcp"] {
        let answers = machine.ada(&format!("sort ~/{name} | uniq -c")).ok();
        assert_eq!(answers.split_whitespace().nth(1), Some("200"), "{name}: {answers}");
        assert_eq!(answers.lines().count(), 1, "{name}: {answers}");
    }
    let after = broker();
    assert_eq!(after["version"], *newer);
    assert_ne!(after["pid"], before["pid"]);
    let again = machine.ada(&update).json();
    assert_eq!((&again["current"], &again["newer"], &again["updated"]), (&newer.into(), &false.into(), &false.into()));
    assert_eq!(machine.ada(&format!("ls -A {BIN}")).ok(), "claude-peers\nclaude-peers-mcp\nclaude-peersd\n");
}
