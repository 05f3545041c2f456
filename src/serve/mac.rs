//! Desktop notifications on a Mac, shown by `osascript`. It can neither take one away again nor hear a click.

use super::desktop::{self, Desktop, When};
use crate::{
    broker::{Broker, Subject},
    platform::call::{Call, CallFailed},
};
use std::{sync::Arc, time::Duration};

/// The text comes as arguments, so that no quote in it becomes a part of the script.
const SCRIPT: &str = "on run argv
    display notification (item 2 of argv) with title (item 1 of argv)
end run";
/// How long the person has touched neither keyboard nor mouse when they count as away.
const AWAY: Duration = Duration::from_secs(300);
/// How long a program of the system may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The programs of the system that this module runs.
struct Mac {
    osascript: &'static str,
    ioreg: &'static str,
}

const MAC: Mac = Mac { osascript: "/usr/bin/osascript", ioreg: "/usr/sbin/ioreg" };

/// Shows notifications until the broker stops.
#[cfg_attr(not(target_os = "macos"), expect(dead_code, reason = "tests on other systems run the rest"))]
pub(super) async fn notify(broker: Arc<Broker>) {
    match When::from_env() {
        Ok(When::Off) => {}
        Ok(when) => desktop::notify(broker.notifications(), &MAC, when).await,
        Err(error) => broker.notice(format!("desktop notifications are off: {error}")),
    }
}

impl Desktop for Mac {
    type Error = CallFailed;

    async fn put_up(&self, _: Subject, title: &str, text: &str) -> Result<(), CallFailed> {
        // Words that begin with `-` would be options of `osascript` without the `--`.
        Call::new("osascript", self.osascript, ["-e", SCRIPT, "--", title, text], PATIENCE).run().await.map(drop)
    }

    async fn withdraw(&self, _: &Subject) -> Result<(), CallFailed> {
        Ok(())
    }

    async fn is_away(&self) -> bool {
        let said = Call::new("ioreg", self.ioreg, ["-c", "IOHIDSystem", "-d", "4"], PATIENCE).run().await;
        let idle = said.inspect_err(|error| tracing::debug!(%error, "whether the user is away is unknown"));
        idle.ok().and_then(|said| idle_time(&said)).is_none_or(|idle| idle >= AWAY)
    }
}

/// For how long nobody has touched keyboard or mouse, from the output of `ioreg`, which counts nanoseconds.
fn idle_time(said: &str) -> Option<Duration> {
    let (_, after) = said.split_once("\"HIDIdleTime\" = ")?;
    let number = after.split(|letter: char| !letter.is_ascii_digit()).next()?;
    number.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    /// A program that does what the script says.
    fn program(folder: &Path, script: &str) -> &'static str {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned().leak()
    }

    #[tokio::test]
    async fn texts_are_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let osascript = program(folder.path(), &format!("shift 3; printf '%s\\n' \"$@\" > '{}'", said.display()));
        let subject = Subject::Session("abcdef".parse().unwrap());
        let (title, text) = ("-e shop needs you", "\" & (do shell script \"id\") & \"");
        Mac { osascript, ..MAC }.put_up(subject, title, text).await.unwrap();
        assert_eq!(fs::read_to_string(said).unwrap(), format!("{title}\n{text}\n"));
    }

    #[tokio::test]
    async fn person_is_away_after_five_idle_minutes() {
        let folder = tempfile::tempdir().unwrap();
        for (script, is_away) in [
            ("echo '    |   \"HIDIdleTime\" = 299999999999'", false),
            ("echo '    |   \"HIDIdleTime\" = 300000000000'", true),
            ("echo nothing", true),
            ("exit 1", true),
        ] {
            let ioreg = program(folder.path(), script);
            assert_eq!(Mac { ioreg, ..MAC }.is_away().await, is_away, "{script}");
        }
    }
}
