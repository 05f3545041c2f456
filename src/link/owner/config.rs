//! The configuration of the hub's `nats-server`: `nats-server.conf`, which stays, and `machines.conf`, which changes with the machines.

use super::{OWNER, Owner};
use crate::{
    link::{key, report::Context, store, subject},
    wire::{self, Code, Error, MachineName},
};
use nkeys::KeyPair;
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

const SERVER: &str = "nats-server";
const MAIN: &str = "nats-server.conf";
const MACHINES: &str = "machines.conf";
const PID: &str = "nats-server.pid";
/// The key that proves which configuration the hub has read.
const PROBE: &str = "probe.key";
/// The unit that runs the hub.
const UNIT: &str = "claude-peers-hub.service";

/// Writes what stays. `synced` says whether the server can sync each message before it acknowledges it.
pub(super) fn write_main(owner: &Owner, port: u16, synced: bool) -> wire::Result<()> {
    let folder = owner.hub_folder();
    let sync = match synced {
        true => "  # A message is on disk when it is acknowledged.\n  sync_interval: always\n",
        false => {
            "  # Before version 2.10, nats-server syncs its files every two minutes: a power cut can lose what it acknowledged since.\n"
        }
    };
    let text = format!(
        "# The hub of claude-peers, made by `claude-peers link init`. `invite` and `revoke` change {MACHINES}.\n\
         server_name: claude-peers-hub\n\
         listen: \"0.0.0.0:{port}\"\n\
         pid_file: {PID:?}\n\
         # Its unit waits for the file that the server writes here when it can be reached.\n\
         ports_file_dir: \".\"\n\
         max_payload: 4MB\n\
         tls {{ cert_file: \"hub.pem\", key_file: \"hub.key\", timeout: 10 }}\n\
         jetstream {{\n  store_dir: \"store\"\n  max_file_store: 4GB\n{sync}}}\n\
         accounts {{ CLAUDE_PEERS {{\n  jetstream: enabled\n  include {MACHINES:?}\n}} }}\n"
    );
    store::write(&folder.join(MAIN), text.as_bytes())?;
    let unit = format!(
        "[Unit]\n\
         Description=Hub of claude-peers\n\
         Documentation=man:claude-peers-link(1)\n\
         \n\
         [Service]\n\
         WorkingDirectory={}\n\
         ExecStart={SERVER} --config {MAIN}\n\
         ExecStartPost=/bin/sh -c 'while kill -0 $MAINPID && [ ! -e {SERVER}_$MAINPID.ports ]; do sleep 0.1; done'\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=on-failure\n\
         LimitNOFILE=65536\n\
         NoNewPrivileges=yes\n\
         UMask=0077\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n",
        // What systemd would replace.
        folder.display().to_string().replace('%', "%%")
    );
    store::write(&unit_file(&folder), unit.as_bytes())
}

pub(super) fn unit_file(folder: &Path) -> PathBuf {
    folder.join(UNIT)
}

/// Writes who may do what, with a new key that proves when the hub has read it.
pub(super) fn write_machines(owner: &Owner) -> wire::Result<()> {
    let admin = owner.admin()?.public_key();
    let probe = key::make_login(&owner.folder.join(PROBE))?;
    let mut text = format!(
        "# Made by claude-peers. A machine publishes under its own name alone, and fetches its own mail alone.\n\
         users: [\n  {{ nkey: {admin} }}\n  {{ nkey: {probe}, permissions: {{ publish: [], subscribe: [] }} }}\n"
    );
    let mut user = |key: &str, publish: &[String], subscribe: &[String]| {
        let list = |subjects: &[String]| subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ");
        // Writing into a string cannot fail.
        _ = writeln!(
            text,
            "  {{ nkey: {key}, permissions: {{\n      publish: [{}]\n      subscribe: [{}]\n  }} }}",
            list(publish),
            list(subscribe)
        );
    };
    for machine in &owner.machines {
        let (publish, subscribe) = permissions(&machine.name);
        user(&machine.login, &publish, &subscribe);
    }
    for invited in &owner.invitations {
        let inbox = format!("{}.>", subject::join_inbox(&invited.name));
        user(&invited.login, &[subject::join(&invited.name)], &[inbox]);
    }
    text.push_str("]\n");
    store::write(&owner.hub_folder().join(MACHINES), text.as_bytes())
}

/// What a machine may publish, and what it may subscribe to.
pub(in crate::link) fn permissions(name: &MachineName) -> (Vec<String>, Vec<String>) {
    let (stream, directory) = (subject::STREAM, subject::DIRECTORY);
    let publish = vec![
        format!("claude-peers.{name}.>"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.{}", subject::mail_for(name)),
        format!("$JS.API.CONSUMER.INFO.{stream}.{name}"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.{name}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
        format!("$JS.ACK.{stream}.{name}.>"),
        format!("$JS.API.DIRECT.GET.{directory}.{directory}"),
    ];
    let subscribe = vec![
        subject::ALL_ALIVE.to_owned(),
        subject::asks_for(name),
        subject::peers_for(name),
        directory.to_owned(),
        format!("{}.>", subject::inbox(name)),
    ];
    (publish, subscribe)
}

/// The key that is in the newest configuration only.
pub(super) fn probe(owner: &Owner) -> wire::Result<KeyPair> {
    key::read(&owner.folder.join(PROBE))
}

pub(super) async fn reload(owner: &Owner) -> wire::Result<()> {
    let folder = owner.hub_folder();
    let pid_file = folder.join(PID);
    let mut command = match &owner.apply {
        Some(apply) => {
            let mut command = Command::new("sh");
            command.args(["-c", apply]);
            command
        }
        None if fs::exists(&pid_file).is_ok_and(|there| there) => {
            // A hub that was killed leaves its file, and the number in it may be another program's by now.
            owner.connect().await?;
            let mut command = server();
            command.arg("--signal").arg(format!("reload={}", pid_file.display()));
            command
        }
        None => {
            return Err(Error::new(Code::Unreachable, "the hub does not run on this machine").help(format!(
                "start it: `systemctl --user enable --now {}`; if it runs elsewhere, say in {} how to reach it: \"apply\": \"COMMAND\"",
                unit_file(&folder).display(),
                owner.folder.join(OWNER).display()
            )));
        }
    };
    command.current_dir(&folder).stdin(Stdio::null());
    let done = command.output().await.local("telling the hub to read its configuration")?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said = match said.trim() {
        "" => "it printed no error".into(),
        said => crate::wire::text::printable_line(said),
    };
    let (command, help) = match &owner.apply {
        Some(_) => ("the command of `--apply`", format!("run it yourself in {}", folder.display())),
        None => {
            ("`nats-server --signal reload`", "`systemctl --user status claude-peers-hub` shows whether the hub runs".to_owned())
        }
    };
    Err(Error::new(Code::Internal, format!("{command} failed with {}: {said}", done.status)).help(help))
}

/// The `nats-server` of this machine. Debian installs it in `/usr/sbin`, which is not on the `PATH` of its users.
fn server() -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin"].map(PathBuf::from));
    let mut command = Command::new(SERVER);
    if let Ok(path) = std::env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

/// The version of the `nats-server` on this machine: its first two numbers; none if there is no such program.
pub(super) async fn version() -> Option<(u32, u32)> {
    let said = server().arg("--version").stdin(Stdio::null()).output().await.ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let mut numbers = said.trim().rsplit_once('v')?.1.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
