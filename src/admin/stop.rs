//! `stop`: ends the broker, and returns when it is gone.

use super::manager;
use crate::{
    client::Client,
    console::{exit::Failure, out::Out},
    platform::process::{identify, is_alive},
    wire::{BrokerStatus, Done, Process},
};
use serde::Serialize;
use std::time::Duration;

/// How long the broker may take to drain and end; it promises 5 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause between two looks at its process.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    ok: bool,
    pid: u32,
    /// The service manager holds a socket and starts the broker again on the next connection.
    starts_again: bool,
}

pub async fn run(broker: &Client, out: Out) -> Result<(), Failure> {
    out.answer(&stop(broker).await?, |stopped, _| {
        let mut text = format!("The broker (pid {}) has stopped.\n", stopped.pid);
        if stopped.starts_again {
            text += "The service manager holds its socket and starts it again on the next connection.\n";
            text += &format!("To keep it stopped: {}\n", manager::keep_stopped());
        }
        text
    })
}

/// Stops it. Its end is seen by its process, not by its socket: where the service manager holds that one, asking again
/// would start the next broker.
pub async fn stop(broker: &Client) -> Result<Stopped, Failure> {
    let status: BrokerStatus = broker.get("/v1/status", None).await?;
    let process = identify(status.pid);
    let answer: Done = broker.post("/v1/stop", None, &serde_json::json!({})).await?;
    // A process that cannot be seen from here (a container's) has at least answered for itself.
    if let Some(process) = process
        && tokio::time::timeout(PATIENCE, end_of(process)).await.is_err()
    {
        let what = format!("the broker (pid {}) was told to stop and still runs after {} s", status.pid, PATIENCE.as_secs());
        return Err(Failure::local(what, "look into its log, or end it with `kill`; nothing it has accepted is lost"));
    }
    let starts_again = status.listeners.iter().any(|listener| listener.origin != "own");
    Ok(Stopped { ok: answer.ok, pid: status.pid, starts_again })
}

async fn end_of(process: Process) {
    let (mut pause, longest) = PAUSE;
    while is_alive(process) {
        tokio::time::sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}
