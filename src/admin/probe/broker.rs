//! A private broker.

use super::{PATIENCE, Stage, broken, cannot_run, ends_well, how, late};
use crate::{
    client::Client,
    console::exit::Failure,
    wire::{Done, Hello},
};
use std::process::Stdio;
use tokio::{net::UnixDatagram, process::Child, time::timeout};

pub struct Broker {
    pub client: Client,
    process: Child,
}

impl Broker {
    /// Starts it on the stage's database and waits for `READY=1`, as a service manager does.
    pub async fn start(stage: &Stage) -> Result<(Self, Hello), Failure> {
        let address = stage.path("notify.sock");
        let _ = std::fs::remove_file(&address); // an earlier broker's; `bind` reports one that stays
        let notify = UnixDatagram::bind(&address)
            .map_err(|e| Failure::local(format!("binding {}: {e}", address.display()), "set TMPDIR to a shorter path"))?;
        let mut command = stage.program("claude-peersd", "broker")?;
        command.env("CLAUDE_PEERS_DB", stage.path("peers.db")).env("CLAUDE_PEERS_PORT", "0").env("NOTIFY_SOCKET", &address);
        let mut process = command.stdout(Stdio::null()).spawn().map_err(|e| cannot_run("claude-peersd", &e))?;
        let ready = async {
            tokio::select! {
                ready = readiness(&notify) => ready,
                ended = process.wait() => Err(broken(format!("claude-peersd ended before it was ready: {}", how(ended)))),
            }
        };
        timeout(PATIENCE, ready).await.unwrap_or_else(|_| Err(late("claude-peersd was not ready")))?;
        let client = Client::new(stage.socket(), "claude-peers");
        let hello = client.hello().await?;
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

async fn readiness(notify: &UnixDatagram) -> Result<(), Failure> {
    let mut buffer = [0; 4096];
    loop {
        let length = notify.recv(&mut buffer).await.map_err(|e| broken(format!("waiting for claude-peersd: {e}")))?;
        if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}
