//! Another user of the machine: a real process with another uid.

use super::http::{Answer, try_read_answer};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// The uid of `nobody`, the same on every system.
const NOBODY: &str = "65534";

/// Connects to a port of loopback or to a Unix socket, writes its input there and prints what comes back.
const CONNECT: &str = r#"
    my $socket = $ARGV[0] =~ m{^/} ? IO::Socket::UNIX->new(Peer => $ARGV[0]) : IO::Socket::INET->new("127.0.0.1:$ARGV[0]");
    die "cannot connect: $!" unless $socket;
    $SIG{PIPE} = "IGNORE";
    local $/;
    print $socket scalar <STDIN>;
    $socket->flush;
    print scalar <$socket>;
"#;

/// Whether this process can become another user; if not, the test that needs it says so loudly and is skipped.
pub fn can_be_had() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: only root can send a request as another user");
    }
    root
}

/// `program` as another user, with nothing of our environment.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

/// Writes these bytes to `address` (a port, or the path of a socket) as another user: the answer, or why there is none.
pub fn says(address: &str, request: &[u8]) -> Result<Answer, String> {
    let mut perl = command(Path::new("perl"));
    perl.args(["-MIO::Socket::INET", "-MIO::Socket::UNIX", "-e", CONNECT, address]);
    let mut child = perl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdin.take().unwrap().write_all(request)); // it may have failed to connect and be gone
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(try_read_answer(&mut output.stdout.as_slice()).unwrap())
}
