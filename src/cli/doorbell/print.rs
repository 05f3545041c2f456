//! The doorbell that a session runs itself, as a background command: it prints the line when mail waits, and ends.
//!
//! Gemini CLI begins a turn when a background command ends, if its user has opted in, and shows the model what the command has printed as
//! the user's words. So this prints nothing of a peer. The kernel shows whose command it is.

use super::mail::{AWAY, LINE, mail, passes};
use crate::{
    agents::known,
    cli::whoami,
    client::Client,
    console::{Failure, Out},
    platform::process,
    wire::{Mail, Peer, Process, Status},
};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// How often to check that the agent lives.
const LOOK: Duration = Duration::from_secs(10);

pub async fn run(broker: &Client, out: Out) -> Result<(), Failure> {
    let (peer, agent) = session(broker).await?;
    let check = async {
        while process::is_alive(agent) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        rung = rings(broker, &peer, agent) => rung?,
        () = check => return Err(ended()),
    }
    out.answer(&json!({ "line": LINE }), |_, _| format!("{LINE}\n"))
}

/// The session that runs this command, and its agent process.
async fn session(broker: &Client) -> Result<(Peer, Process), Failure> {
    let peer = loop {
        match whoami::by_process(broker).await {
            Ok(peer) => break peer,
            Err(error) if passes(&error) && process::parent().is_some_and(|parent| parent > 1) => sleep(AWAY).await,
            Err(error) => return Err(error.into()),
        }
    };
    let name = peer.agent.as_ref().map_or("", |agent| &*agent.name);
    let wake = known::named(name).and_then(|agent| agent.wake_is_on());
    match wake {
        Some(Ok(true)) => {}
        Some(Ok(false)) => {
            let help = "the user turns it on as docs/agents.md says; a session must not";
            return Err(Failure::local("the user has not turned on that a background command wakes this session", help));
        }
        Some(Err(error)) => return Err(Failure::local(error.to_string(), "correct the file")),
        None => {
            let help = "messages come in another way; `claude-peers whoami` says how";
            return Err(Failure::local("the end of a background command does not wake this agent", help));
        }
    }
    let agent = peer.pid.filter(|pid| process::descends_from(std::process::id(), *pid)).and_then(process::identify);
    agent.map(|agent| (peer, agent)).ok_or_else(ended)
}

fn ended() -> Failure {
    Failure::no_answer("the session has ended", "its mail waits until it is resumed")
}

/// Waits until mail waits, also across a restart of the broker.
async fn rings(broker: &Client, peer: &Peer, agent: Process) -> Result<(), Failure> {
    loop {
        match mail(broker, peer, None).await {
            Ok(Mail { newest: Some(_), .. }) => return Ok(()),
            Ok(Mail { peer, .. }) if peer.status == Status::Gone => return Err(ended()),
            Ok(Mail { peer, .. }) if peer.status == Status::Connected => {}
            Err(error) if !passes(&error) => return Err(error.into()),
            _ if !process::is_alive(agent) => return Err(ended()),
            _ => sleep(AWAY).await,
        }
    }
}
