//! Another process that makes HTTP requests, of this user or of another user.

use super::http::{Answer, try_read_answer};
use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// The uid of `nobody`.
const NOBODY: &str = "65534";

/// Reads an address (a loopback port or a socket path) and a request, sends the request there, and prints the answer. The
/// lengths of request and answer come first.
const PROGRAM: &str = r#"
    $| = 1;
    $SIG{PIPE} = "IGNORE";
    while (my $line = <STDIN>) {
        my ($address, $length) = split " ", $line;
        read STDIN, my $request, $length;
        my $socket = $address =~ m{^/} ? IO::Socket::UNIX->new(Peer => $address) : IO::Socket::INET->new("127.0.0.1:$address");
        my $answer = "cannot connect: $!";
        if ($socket) {
            print $socket $request;
            $socket->flush;
            local $/;
            $answer = <$socket> // "";
        }
        print length $answer, "\n", $answer;
    }
"#;

/// The other process.
pub struct Other {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Other {
    /// Starts a process of this user.
    pub fn process() -> Self {
        Self::start(Command::new("perl"))
    }

    /// Starts a process of another user. Prints a message and returns `None` without the right to do so.
    pub fn user() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("SKIPPED: only root can send a request as another user");
        }
        root.then(|| Self::start(as_another_user(Path::new("perl"))))
    }

    fn start(mut perl: Command) -> Self {
        perl.args(["-MIO::Socket::INET", "-MIO::Socket::UNIX", "-e", PROGRAM]);
        let mut child = perl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it write these bytes to `address` (a port or a socket path). Returns the answer, or the reason why there is none.
    pub fn says(&mut self, address: &str, request: &[u8]) -> Result<Answer, String> {
        self.stdin.write_all(format!("{address} {}\n", request.len()).as_bytes()).unwrap();
        self.stdin.write_all(request).unwrap();
        self.stdin.flush().unwrap();
        let mut length = String::new();
        self.stdout.read_line(&mut length).unwrap();
        let mut answer = vec![0; length.trim().parse().unwrap()];
        self.stdout.read_exact(&mut answer).unwrap();
        if answer.starts_with(b"HTTP/") {
            Ok(try_read_answer(&mut answer.as_slice()).unwrap())
        } else {
            Err(String::from_utf8_lossy(&answer).into_owned())
        }
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command that runs `program` as another user with a clean environment.
pub fn as_another_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}
