//! A process that is Claude Code by its name, runs the real MCP server, and starts real hooks when told to.

use super::{Broker, PATIENCE, Session, eventually, mcp::Start};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// The `claude` process of a session.
pub struct Claude {
    /// Its MCP server, by its standard input and output.
    pub session: Session,
    orders: File,
    place: tempfile::TempDir,
    next: Cell<u32>,
}

/// A hook that was started.
#[derive(Debug, Clone)]
pub struct Hook {
    files: PathBuf,
}

/// How a hook ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Claude {
    /// Starts it, with its server, which has done the handshake.
    pub fn start(broker: &Broker, directory: &Path, session_id: &str) -> Self {
        let start = Start { broker, directory, session_id, delivery: "", env: Vec::new() };
        let mut claude = Self::launch(&start, &[], "");
        claude.session.handshake();
        claude
    }

    /// Starts it; its shell does what `first` says before it starts the server.
    pub fn launch(start: &Start<'_>, flags: &[&str], first: &str) -> Self {
        let place = super::folder();
        let pipe = place.path().join("orders");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Both ends at once: opening one would wait for the other.
        let orders = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let script = format!(
            r#"export CLAUDE_PID=$$; (while read -r order; do eval "$order"; done) <'{}' & {first} "$SERVER""#,
            pipe.display()
        );
        let session = Session::spawn(start.claude(&script, flags));
        Self { session, orders, place, next: Cell::new(0) }
    }

    /// Starts the hook of an event, of the session `session_id`; `more` is added to its input.
    pub fn hook(&self, event: &str, session_id: &str, more: Value) -> Hook {
        let mut input = json!({"session_id": session_id, "transcript_path": "/t", "cwd": "/tmp", "hook_event_name": event});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.raw_hook(event, &input.to_string(), "")
    }

    /// Starts a hook with this input, and with these settings of variables before its command.
    pub fn raw_hook(&self, event: &str, input: &str, variables: &str) -> Hook {
        self.next.set(self.next.get() + 1);
        let files = self.place.path().join(format!("hook-{}", self.next.get()));
        let hook = Hook { files };
        fs::write(hook.file("in"), input).unwrap();
        let (cli, files) = (env!("CARGO_BIN_EXE_claude-peers"), hook.files.display());
        let run = format!(r#"echo $$ >'{files}.pid'; exec '{cli}' hook {event}"#);
        let order = format!(
            r#"( {variables} sh -c "$(cat '{files}.run')" <'{files}.in' >'{files}.out' 2>'{files}.err'; echo $? >'{files}.code' ) &"#
        );
        fs::write(hook.file("run"), run).unwrap();
        (&self.orders).write_all(format!("{order}\n").as_bytes()).unwrap();
        hook
    }
}

impl Drop for Claude {
    /// Its hooks end with it: whatever they have to say is said before their folder goes.
    fn drop(&mut self) {
        self.session.end();
        let begun = Instant::now();
        let ended = |number| self.place.path().join(format!("hook-{number}.code")).exists();
        while !(1..=self.next.get()).all(ended) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Hook {
    fn file(&self, kind: &str) -> PathBuf {
        self.files.with_extension(kind)
    }

    fn read(&self, kind: &str) -> Option<String> {
        fs::read_to_string(self.file(kind)).ok().filter(|text| kind != "code" && kind != "pid" || text.ends_with('\n'))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        eventually("the hook runs", || self.read("pid")?.trim().parse().ok())
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        self.read("code").is_none()
    }

    /// Waits for its end.
    pub fn ended(&self) -> Ended {
        let code = eventually("the hook ends", || self.read("code")?.trim().parse().ok());
        Ended { code, stdout: self.read("out").unwrap(), stderr: self.read("err").unwrap() }
    }

    /// Waits for its end, which must be a silent one.
    pub fn left_silently(&self) {
        assert_eq!(self.ended(), Ended { code: 0, stdout: String::new(), stderr: String::new() });
    }

    /// Waits for its end, by which it wakes its session: what it says.
    pub fn woke(&self) -> String {
        let Ended { code, stdout, stderr } = self.ended();
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        stderr
    }

    /// Waits for its end: what it puts beside the prompt or the result of a tool.
    pub fn put_beside(&self, event: &str) -> String {
        let Ended { code, stdout, stderr } = self.ended();
        assert_eq!((code, stderr.as_str()), (0, ""));
        let output: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout:?}"));
        assert_eq!(output["hookSpecificOutput"]["hookEventName"], event);
        output["hookSpecificOutput"]["additionalContext"].as_str().unwrap().to_owned()
    }
}
