//! Running other programs: `systemctl`, `launchctl`, `claude`.
//!
//! A call prints as a user would type it, for previews and advice. It reads nothing from the terminal and ends within its time
//! limit, with all processes that the program has started. Its error names the call and quotes the program's output.
//!
//! The program stays in our process group: Ctrl-C in a terminal ends it with us.

use super::process;
use crate::wire::text::printable;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    pin::pin,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{process::Command, time::timeout};

const MAX_SAID: usize = 600;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The program's name as people type it.
    name: String,
    program: PathBuf,
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
    patience: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct CallFailed {
    what: String,
    /// None if a signal ended it or it never ran.
    pub code: Option<i32>,
}

impl Call {
    pub fn new<W: AsRef<OsStr>>(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        words: impl IntoIterator<Item = W>,
        patience: Duration,
    ) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            words: words.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            environment: Vec::new(),
            directory: None,
            patience,
        }
    }

    pub fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Returns the standard output of a successful run.
    pub async fn run(&self) -> Result<String, CallFailed> {
        let Output { stdout, .. } = self.success().await?;
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// Returns the output of a successful run.
    pub async fn success(&self) -> Result<Output, CallFailed> {
        let output = self.output().await?;
        if output.status.success() {
            return Ok(output);
        }
        let Output { status, stdout, stderr } = output;
        let said =
            [stderr, stdout].map(|stream| String::from_utf8_lossy(&stream).trim().chars().take(MAX_SAID).collect::<String>());
        let said = said.iter().find(|said| !said.is_empty()).map(|said| format!(": {}", printable(said))).unwrap_or_default();
        Err(CallFailed { what: format!("`{self}` failed ({status}){said}"), code: status.code() })
    }

    /// Returns status and output, even of a failed run.
    pub async fn output(&self) -> Result<Output, CallFailed> {
        let mut command = Command::new(&self.program);
        command.args(&self.words).envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let failed = |error| CallFailed { what: format!("`{self}` could not be run: {error}"), code: None };
        let child = command.spawn().map_err(failed)?;
        let program = child.id().and_then(process::identify);
        let mut output = pin!(child.wait_with_output());
        if let Ok(output) = timeout(self.patience, &mut output).await {
            return output.map_err(failed);
        }
        // Before the program itself, which is killed last: what it has started could not be found any more.
        let helpers = program.filter(|program| process::is_alive(*program)).map(|program| process::descendants(program.pid));
        for helper in helpers.into_iter().flatten().filter_map(|pid| Pid::from_raw(pid.try_into().ok()?)) {
            let _ = kill_process(helper, Signal::KILL); // it may have ended by now
        }
        let what = format!("`{self}` did not end within {} s and was killed", self.patience.as_secs());
        Err(CallFailed { what, code: None })
    }
}

/// The call as a user would type it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.name))?;
        self.words.iter().try_for_each(|word| write!(f, " {}", quoted(&word.to_string_lossy())))
    }
}

/// Quotes `word` for a shell.
pub fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=@%+,~".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::new("sh", "/bin/sh", ["-c", script], Duration::from_secs(30))
    }

    #[tokio::test]
    async fn call_gives_its_output_or_its_error() {
        let call = Call::new("claude", "/x/claude", ["mcp", "--", "/a b/c", "it's", ""], Duration::ZERO);
        assert_eq!(call.to_string(), r"claude mcp -- '/a b/c' 'it'\''s' ''");
        assert_eq!(shell("echo $WORD").env("WORD", "yes").run().await.expect("success"), "yes\n");
        let mut hangs = shell("exec cat /dev/zero >/dev/null");
        hangs.patience = Duration::from_millis(1);
        for (call, start, end) in [
            (shell("echo out; echo wrong >&2; exit 3"), "`sh -c 'echo out", "failed (exit status: 3): wrong"),
            (Call::new("nobody", "/nowhere/nobody", [""; 0], Duration::ZERO), "`nobody` could not be run: ", ""),
            (hangs, "`sh", "did not end within 0 s and was killed"),
        ] {
            let failed = call.run().await.expect_err(start).to_string();
            assert!(failed.starts_with(start) && failed.ends_with(end), "{failed}");
        }
    }

    #[tokio::test]
    async fn late_program_ends_with_its_helpers() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("helper");
        let script = format!("(sleep 1000 & echo $! >'{0}.new' && mv '{0}.new' '{0}'; wait); exit", file.display());
        let mut call = shell(&script);
        call.patience = Duration::from_millis(20);
        let helper = loop {
            call.run().await.expect_err("too late");
            match std::fs::read_to_string(&file) {
                Ok(helper) => break helper.trim().parse().expect("a process"),
                Err(_) => call.patience *= 2, // the machine is slow
            }
        };
        let is_sleep = || process::command_line(helper).first().is_some_and(|program| program == "sleep");
        for _ in 0..1000 {
            if !is_sleep() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the helper {helper} is left");
    }
}
