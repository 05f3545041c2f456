//! `stop`: ends the broker and returns once its process is gone.

use super::manager;
use crate::{
    client::Client,
    console::{Failure, Out},
    platform::{
        process::{identify, is_alive},
        retry::Retry,
    },
    wire::{BrokerStatus, Done},
};
use serde::Serialize;
use std::time::Duration;

/// The broker promises to drain and exit within 5 s.
const EXIT: Retry = Retry { pause: (Duration::from_millis(5), Duration::from_millis(200)), patience: Duration::from_secs(10) };

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    ok: bool,
    pid: u32,
    /// The service manager holds a socket and restarts the broker on the next connection.
    starts_again: bool,
}

pub async fn run(broker: &Client, out: Out) -> Result<(), Failure> {
    out.answer(&stop(broker).await?, |stopped, _| {
        let mut text = format!("The broker (pid {}) has stopped.\n", stopped.pid);
        if stopped.starts_again {
            text += "The service manager still listens and starts it again on the next connection.\n";
            text += &format!("To keep it stopped: {}\n", manager::keep_stopped());
        }
        text
    })
}

/// Stops the broker and waits for its process to end. A connection is no test: the service manager may hold the socket and would
/// start the next broker.
pub async fn stop(broker: &Client) -> Result<Stopped, Failure> {
    let status: BrokerStatus = broker.get("/v1/status", None).await?;
    let process = identify(status.pid);
    let answer: Done = broker.post("/v1/stop", None, &serde_json::json!({})).await?;
    // A process that is invisible from here, such as one in a container, has at least answered.
    if let Some(process) = process
        && EXIT.run(async || is_alive(process), |alive| *alive).await
    {
        let what = format!("the broker (pid {}) was told to stop and still runs after {} s", status.pid, EXIT.patience.as_secs());
        return Err(Failure::local(what, "look into its log, or end it with `kill`; accepted messages are safe on disk"));
    }
    let starts_again = status.listeners.iter().any(|listener| listener.origin != "own");
    Ok(Stopped { ok: answer.ok, pid: status.pid, starts_again })
}
