//! The user service that runs the link.

use super::say::say;
use crate::wire::{self, Code, Error};
use std::process::Stdio;
use tokio::process::Command;

const UNIT: &str = "claude-peers-link.service";

/// Starts the service, now and at each login. Without one, says how to run the program.
pub(super) async fn start() -> wire::Result<()> {
    if !is_installed().await {
        say("There is no service claude-peers-link here. Run `claude-peers-link run`: it links this machine until you stop it.");
        return Ok(());
    }
    systemctl(&["enable", "--now", UNIT]).await?;
    say("The service claude-peers-link runs, now and after each login.");
    Ok(())
}

/// Stops the service for good, if there is one.
pub(super) async fn stop() -> wire::Result<()> {
    match is_installed().await {
        true => systemctl(&["disable", "--now", UNIT]).await,
        false => Ok(()),
    }
}

/// What systemd says of the service, in a word; none without systemd or the unit.
pub(super) async fn state() -> Option<String> {
    if !is_installed().await {
        return None;
    }
    let said = Command::new("systemctl").args(["--user", "is-active", UNIT]).stdin(Stdio::null()).output().await.ok()?;
    String::from_utf8(said.stdout).ok().map(|word| word.trim().to_owned())
}

async fn is_installed() -> bool {
    let asked = Command::new("systemctl").args(["--user", "cat", UNIT]).stdin(Stdio::null()).output().await;
    asked.is_ok_and(|said| said.status.success())
}

async fn systemctl(words: &[&str]) -> wire::Result<()> {
    let what = format!("`systemctl --user {}`", words.join(" "));
    let done = Command::new("systemctl").arg("--user").args(words).stdin(Stdio::null()).output().await;
    let done = done.map_err(|error| super::error::local(&what, &error))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&done.stderr);
            Err(Error::new(Code::Internal, format!("{what}: {}", wire::text::printable_line(said.trim()))))
        }
    }
}
