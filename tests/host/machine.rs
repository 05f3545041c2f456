//! A real Debian with systemd as process 1, booted from a folder in its own namespaces.
//!
//! Each machine has its own overlay over the prepared system, so that tests can run in parallel. It is halted and removed at
//! the end. A failing test prints the machine's journal.

use crate::{
    prepare::{Prepared, Release},
    support::Session,
};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a machine may take to boot, or a command in it to end. It only limits hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Boots a machine.
const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/boot");
/// The address of a machine's web server.
pub const WEB: &str = "http://127.0.0.1:8080";
/// Answers one request for a file of `/srv/www`.
const SERVE: &str = r#"
    read -r _ path _
    while read -r line && [ ${#line} -gt 1 ]; do :; done
    printf -v file '/srv/www%b' "${path//%/\\x}"
    status='200 OK'
    [ -f "$file" ] || file=/dev/null status='404 Not Found'
    printf 'HTTP/1.1 %s\r\ncontent-length: %s\r\nconnection: close\r\n\r\n' "$status" "$(stat -c %s "$file")"
    exec cat "$file"
"#;

/// The users of every machine. Each has a running user manager.
pub const USERS: [&str; 2] = ["ada", "bob"];

/// A booted machine.
pub struct Machine {
    folder: tempfile::TempDir,
    boot: Option<(Child, u32)>,
}

/// A command's exit status and output.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self.out
    }

    /// The output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

impl Machine {
    /// Boots a machine with this release and waits for its users' managers.
    pub fn boot(prepared: &Prepared, release: Release) -> Self {
        let mut machine = Self::switched_off(prepared, release);
        machine.start();
        machine
    }

    /// A machine that does not run.
    pub fn switched_off(prepared: &Prepared, release: Release) -> Self {
        let folder = tempfile::Builder::new().prefix("machine-").tempdir_in(prepared.place()).unwrap();
        for part in ["upper", "work", "root"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let machine = Self { folder, boot: None };
        let layers = format!(
            "lowerdir={},upperdir={1}/upper,workdir={1}/work",
            prepared.root(release).display(),
            machine.folder.path().display()
        );
        call(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay"]).arg(machine.path("/")));
        for (source, target) in prepared.shared() {
            let target = machine.path(target);
            fs::create_dir_all(&target).unwrap();
            call(Command::new("mount").arg("--bind").arg(source).arg(target));
        }
        machine
    }

    /// Runs a script as root in its file system, without systemd: a container.
    pub fn in_container(&self, script: &str) -> Run {
        let mut command = Command::new("bash");
        command.arg(BOOT).arg(self.path("/")).args(["timeout", &PATIENCE.as_secs().to_string(), "sh", "-c", script]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let run = Run::of(&child.wait_with_output().unwrap());
        remove_group(id);
        run
    }

    /// Boots the machine.
    pub fn start(&mut self) {
        let log = fs::File::create(self.folder.path().join("boot.log")).unwrap();
        let mut command = Command::new("bash");
        command.arg(BOOT).arg(self.path("/")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let init = eventually("the machine starts", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", fs::read_to_string(self.folder.path().join("boot.log")).unwrap_or_default());
            }
            let pid = fs::read_to_string(&children).ok()?.trim().parse().ok()?;
            // The preparation runs in a shell that becomes systemd.
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "systemd").then_some(pid)
        });
        self.boot = Some((child, init));
        let state = eventually("the machine is up", || {
            let run = self.root("systemctl is-system-running --wait");
            Some(run.out.trim().to_owned()).filter(|state| ["running", "degraded"].contains(&state.as_str()))
        });
        assert!(state == "running", "{state}: {}", self.root("systemctl --failed; journalctl -b -p warning --no-pager").out);
        for user in USERS {
            self.root(&format!("systemctl start user@$(id -u {user}).service")).ok();
        }
    }

    /// Kills the machine, like a power cut.
    pub fn cut_power(&mut self) {
        let (_, init) = self.boot.as_ref().expect("a running machine");
        call(Command::new("kill").args(["-9", &init.to_string()]));
        self.halted();
    }

    /// Waits until the machine has halted.
    pub fn halted(&mut self) {
        let (mut child, _) = self.boot.take().expect("a running machine");
        eventually("the machine halts", || child.try_wait().unwrap());
        gone(child);
    }

    /// The path of one of its files, seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path.trim_start_matches('/'))
    }

    /// A command in the machine as root or as a user, with the user's runtime directory, bus and home.
    pub fn command(&self, user: &str, program: impl AsRef<OsStr>) -> Command {
        let (_, init) = self.boot.as_ref().expect("a running machine");
        let mut command = Command::new("nsenter");
        command.args(["-t", &init.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]);
        command.args(["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]);
        if user == "root" {
            command.arg("HOME=/root");
        } else {
            command.args(["runuser", "-u", user, "--", "/usr/local/bin/as-at-login"]);
        }
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a script as this user.
    pub fn run(&self, user: &str, script: &str) -> Run {
        let mut command = self.command(user, "timeout");
        Run::of(&command.args([&PATIENCE.as_secs().to_string(), "sh", "-c", script]).output().unwrap())
    }

    /// Runs a script as root.
    pub fn root(&self, script: &str) -> Run {
        self.run("root", script)
    }

    /// Runs a script as ada.
    pub fn ada(&self, script: &str) -> Run {
        self.run("ada", script)
    }

    /// Runs a script as bob.
    pub fn bob(&self, script: &str) -> Run {
        self.run("bob", script)
    }

    /// Starts an MCP session in a user's home as Claude Code does, including the handshake.
    pub fn session(&self, user: &str, session_id: &str) -> Session {
        let mut command = self.command(user, "env");
        command.args(["CLAUDECODE=1", "CLAUDE_CODE_ENTRYPOINT=cli", "CLAUDE_PEERS_DELIVERY=channel"]);
        command.arg(format!("CLAUDE_CODE_SESSION_ID={session_id}")).arg("claude-peers-mcp");
        let mut session = Session::spawn(command);
        session.handshake();
        session
    }

    /// A property of one of a user's units.
    pub fn property(&self, user: &str, unit: &str, property: &str) -> String {
        self.run(user, &format!("systemctl --user show --value -p {property} {unit}")).ok().trim().to_owned()
    }

    /// Changes one of a user's units with a drop-in file, as `systemctl --user edit` does.
    pub fn override_unit(&self, user: &str, unit: &str, text: &str) {
        let folder = format!("~/.config/systemd/user/{unit}.d");
        self.run(
            user,
            &format!("mkdir -p {folder} && printf '{text}' >{folder}/override.conf && systemctl --user daemon-reload"),
        )
        .ok();
    }

    /// Installs a real Claude Code for a user where its installer would; false if none is available.
    pub fn give_claude(&self, prepared: &Prepared, user: &str) -> bool {
        if prepared.claude.is_some() {
            self.run(user, "mkdir -p ~/.local/bin && ln -s /opt/claude/claude ~/.local/bin/claude").ok();
        }
        prepared.claude.is_some()
    }

    /// Starts a web server on [`WEB`] for the files in `/srv/www`.
    pub fn serve(&self) {
        fs::write(self.path("/srv/serve"), SERVE).unwrap();
        let listen = "systemd-socket-activate --listen=127.0.0.1:8080 --accept --inetd bash /srv/serve";
        self.root(&format!("systemd-run --quiet --unit=web --property=Type=exec {listen}")).ok();
        self.root(&format!("curl -sS --retry 50 --retry-connrefused --retry-delay 0 -o /dev/null {WEB}/")).ok();
    }

    /// Installs a package.
    pub fn install(&self, package: &Path) -> Run {
        let name = package.file_name().unwrap().to_str().unwrap();
        fs::copy(package, self.path("/var/tmp").join(name)).unwrap();
        self.root(&format!("dpkg --install /var/tmp/{name} && rm /var/tmp/{name}"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.boot.is_some() && std::thread::panicking() {
            eprintln!("--- the machine's journal ---\n{}--- end ---", self.root("journalctl -b -n 200 --no-pager").out);
        }
        if let Some((child, init)) = self.boot.take() {
            drop(Command::new("kill").args(["-9", &init.to_string()]).status());
            gone(child);
        }
        // Unmounts everything below, then the overlay; lazily, because some processes may still be ending.
        drop(Command::new("umount").args(["--recursive", "--lazy"]).arg(self.folder.path().join("root")).status());
    }
}

/// Waits for a machine to end and removes its control group.
fn gone(mut boot: Child) {
    drop(boot.wait());
    remove_group(boot.id());
}

fn remove_group(boot: u32) {
    let script = "group=$(awk '$3 == \"cgroup2\" { print $2; exit }' /proc/mounts)/claude-peers-host-$0\n\
        for try in 1 2 3 4 5; do find $group -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done";
    drop(Command::new("sh").args(["-c", script, &boot.to_string()]).output());
}

/// Runs a command that must succeed.
#[track_caller]
pub fn call(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// Polls `condition` until it returns something, for facts that no event announces.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
