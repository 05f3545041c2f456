//! Runs the tests in namespaces that have only a loopback network and only the tests' own processes, so that every process a
//! test starts ends with the test run.

use std::{
    convert::Infallible,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

/// Set inside the namespaces.
const MARK: &str = "CLAUDE_PEERS_TEST_ALONE";

/// Whether this process runs inside the namespaces.
pub fn is() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Replaces this process with the same program and arguments inside the namespaces.
///
/// # Errors
/// The reason why the namespaces cannot be created.
pub fn become_so() -> Result<Infallible, String> {
    // The shell stays as process 1 and reaps orphans.
    let mut probe = unshare("ip link set lo up");
    let output = probe.stdin(Stdio::null()).output().map_err(|e| format!("unshare: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("no namespaces with a loopback network can be had: {}", said.trim()));
    }
    let program = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut command = unshare("ip link set lo up && \"$0\" \"$@\"; exit $?");
    Err(format!("unshare: {}", command.arg(program).args(std::env::args_os().skip(1)).env(MARK, "1").exec()))
}

fn unshare(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]);
    command
}
