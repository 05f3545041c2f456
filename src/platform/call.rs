//! Another program, called and waited for: `systemctl`, `launchctl`, `claude`.
//!
//! Promises: a call can be printed as one would type it, for previews and remedies; it reads nothing from the terminal; it ends
//! in a bounded time; a call that fails says which one it was and what it said.

use crate::wire::text::printable;
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{process::Command, time::timeout};

const MAX_SAID: usize = 600;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What people type.
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
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
}

impl Call {
    /// A call of `program`, which people know as `name`, with these words.
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

    /// Makes the call; gives what it wrote to standard output.
    pub async fn run(&self) -> Result<String, CallFailed> {
        let Output { status, stdout, stderr } = self.output().await?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        let said = [stderr, stdout].map(|stream| String::from_utf8_lossy(&stream).trim().to_owned());
        let said: String =
            said.iter().find(|said| !said.is_empty()).iter().flat_map(|said| said.chars()).take(MAX_SAID).collect();
        let said = if said.is_empty() { said } else { format!(": {}", printable(&said)) };
        Err(CallFailed { what: format!("`{self}` failed ({status}){said}"), code: status.code() })
    }

    /// Makes the call; gives how it ended and what it said, whatever that is.
    pub async fn output(&self) -> Result<Output, CallFailed> {
        let mut command = Command::new(&self.program);
        command.args(&self.words).envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        let ended = timeout(self.patience, command.output()).await;
        let what = match ended {
            Ok(Ok(output)) => return Ok(output),
            Ok(Err(error)) => format!("`{self}` could not be run: {error}"),
            Err(_) => format!("`{self}` did not end within {} s and was killed", self.patience.as_secs()),
        };
        Err(CallFailed { what, code: None })
    }
}

/// As one would type it.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(&self.name))?;
        self.words.iter().try_for_each(|word| write!(f, " {}", quoted(&word.to_string_lossy())))
    }
}

/// `word` as a shell reads it back.
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

    #[test]
    fn a_call_is_printed_as_one_would_type_it() {
        assert_eq!(
            Call::new("claude", "/x/claude", ["mcp", "--", "/a b/c"], Duration::ZERO).to_string(),
            "claude mcp -- '/a b/c'"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[tokio::test]
    async fn a_call_gives_its_output_or_says_what_failed() {
        assert_eq!(shell("echo $WORD").env("WORD", "yes").run().await.expect("success"), "yes\n");
        let failed = shell("echo beside >&1; echo wrong >&2; exit 3").run().await.expect_err("exit 3").to_string();
        assert!(failed.starts_with("`sh -c 'echo beside") && failed.ends_with("failed (exit status: 3): wrong"), "{failed}");
        let absent = Call::new("nobody", "/nowhere/nobody", [""; 0], Duration::ZERO).run().await.expect_err("absent").to_string();
        assert!(absent.starts_with("`nobody` could not be run: "), "{absent}");
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_ended() {
        let mut call = shell("exec cat /dev/zero >/dev/null");
        call.patience = Duration::from_millis(1);
        let error = call.run().await.expect_err("late").to_string();
        assert!(error.ends_with("did not end within 0 s and was killed"), "{error}");
    }
}
