//! A private broker.

use super::{PATIENCE, Stage, broken, cannot_run, ends_well, how, late};
use crate::{
    client::Client,
    console::exit::Failure,
    platform::retry::Retry,
    wire::{Done, Hello},
};
use std::{process::Stdio, time::Duration};
use tokio::process::Child;

const START: Retry = Retry { pause: (Duration::from_millis(2), Duration::from_millis(50)), patience: PATIENCE };

pub struct Broker {
    pub client: Client,
    process: Child,
}

impl Broker {
    /// Starts it on the stage's database and waits until it answers.
    pub async fn start(stage: &Stage) -> Result<(Self, Hello), Failure> {
        let mut command = stage.program("claude-peersd", "broker")?;
        command.env("CLAUDE_PEERS_DB", stage.path("peers.db")).env("CLAUDE_PEERS_PORT", "0").stdout(Stdio::null());
        let mut process = command.spawn().map_err(|e| cannot_run("claude-peersd", &e))?;
        let client = Client::new(stage.socket(), "claude-peers");
        let hello = tokio::select! {
            hello = START.run(async || client.hello().await, Result::is_err) => hello,
            ended = process.wait() => return Err(broken(format!("claude-peersd ended before it was ready: {}", how(ended)))),
        };
        let hello = hello.map_err(|_| late("claude-peersd was not ready"))?;
        Ok((Self { client, process }, hello))
    }

    pub async fn kill(mut self) -> Result<(), Failure> {
        self.process.kill().await.map_err(|e| broken(format!("killing claude-peersd: {e}")))
    }

    pub async fn stop(self) -> Result<(), Failure> {
        let _: Done = self.client.post("/v1/stop", None, &serde_json::json!({})).await?;
        ends_well(self.process, "claude-peersd").await
    }
}
