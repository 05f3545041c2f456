//! The user service that runs the link.

use super::report::{Context, say};
use crate::{platform::call::Call, wire};
use std::time::Duration;

const UNIT: &str = "claude-peers-link.service";
/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the service, now and at each login. Without one, says how to run the program.
pub(super) async fn start() -> wire::Result<()> {
    if !is_installed().await {
        say("There is no service claude-peers-link here. Run `claude-peers-link run`: it links this machine until you stop it.");
        return Ok(());
    }
    systemctl(&["enable", "--now", UNIT]).run().await.local("starting the service")?;
    say("The service claude-peers-link runs, now and after each login.");
    Ok(())
}

/// Stops the service for good, if there is one.
pub(super) async fn stop() -> wire::Result<()> {
    match is_installed().await {
        true => systemctl(&["disable", "--now", UNIT]).run().await.map(drop).local("stopping the service"),
        false => Ok(()),
    }
}

/// What systemd says of the service, in a word; none without systemd or the unit.
pub(super) async fn state() -> Option<String> {
    if !is_installed().await {
        return None;
    }
    let said = systemctl(&["is-active", UNIT]).output().await.ok()?;
    String::from_utf8(said.stdout).ok().map(|word| word.trim().to_owned())
}

async fn is_installed() -> bool {
    systemctl(&["cat", UNIT]).run().await.is_ok()
}

fn systemctl(words: &[&str]) -> Call {
    Call::new("systemctl", "systemctl", [&["--user"], words].concat(), PATIENCE)
}
