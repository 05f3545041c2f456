//! Containers: processes in user, PID, mount and network namespaces of their own, into which the folder of a container's socket is
//! mounted as the manual says.

use super::Broker;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The socket inside.
pub const SOCKET: &str = "/run/claude-peers/broker.sock";
/// `required` where the tests may not be skipped.
const REQUIRED: &str = "CLAUDE_PEERS_HOST_TESTS";
const NAMESPACES: [&str; 8] =
    ["--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount", "--net", "--mount-proc"];

/// Opens the socket of a container with the command line, and returns the folder to mount.
pub fn open(broker: &Broker, name: &str) -> PathBuf {
    let (code, opened) = broker.cli_json(&["container", name]);
    assert_eq!(code, 0, "{opened}");
    opened["folder"].as_str().unwrap().into()
}

/// Whether there can be containers here. If not, prints a message.
pub fn are_possible() -> bool {
    let mut probe = Command::new("unshare");
    probe.args(NAMESPACES).args(["mount", "-t", "tmpfs", "none", "/run"]).stdin(Stdio::null());
    let is_possible = probe.output().is_ok_and(|output| output.status.success());
    if !is_possible {
        assert!(std::env::var_os(REQUIRED).is_none_or(|value| value != "required"), "no namespaces of a container can be had");
        eprintln!("SKIPPED: no namespaces of a container can be had");
    }
    is_possible
}

/// The command inside a container, with the environment of `command` and the socket in `folder`.
pub fn inside(folder: &Path, command: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(NAMESPACES);
    mounted(unshare, folder, "exec \"$@\"", command)
}

/// The same as another user of the machine, for whom root mounts the folder, as Docker does. `is_mapped`: the user is root inside, and the
/// machine's users are unknown there. Needs root.
pub fn inside_as_another_user(folder: &Path, command: &Command, is_mapped: bool) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount");
    let namespaces = if is_mapped { format!("unshare {}", NAMESPACES.join(" ")) } else { String::new() };
    let then = format!("exec setpriv --reuid 65534 --regid 65534 --clear-groups -- {namespaces} \"$@\"");
    mounted(unshare, folder, &then, command)
}

fn mounted(mut unshare: Command, folder: &Path, then: &str, command: &Command) -> Command {
    let mount = "mount -t tmpfs none /run && mkdir /run/claude-peers && mount --bind \"$0\" /run/claude-peers &&
        mount -o remount,bind,ro /run/claude-peers";
    unshare.args(["sh", "-c", &format!("{mount} && {then}")]).arg(folder);
    unshare.arg(command.get_program()).args(command.get_args());
    unshare.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    unshare.env("CLAUDE_PEERS_SOCKET", SOCKET).env_remove("CLAUDE_PEERS_DB").env_remove("CLAUDE_PEERS_PORT");
    if let Some(directory) = command.get_current_dir() {
        unshare.current_dir(directory);
    }
    unshare
}
