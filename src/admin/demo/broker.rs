//! A broker of the demo's own: started, killed, started again on the same database, stopped.

use super::{PATIENCE, late, stage::Stage};
use crate::{
    client::Client,
    console::exit::Failure,
    wire::{Done, Hello},
};
use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    net::UnixDatagram,
    process::Child,
    time::{Instant, timeout},
};

pub struct Broker {
    pub client: Client,
    process: Child,
}

impl Broker {
    /// Starts it on the stage's database and waits until it says `READY=1`, as it would to a service manager.
    pub async fn start(stage: &Stage) -> Result<(Self, Hello, Duration), Failure> {
        let began = Instant::now();
        let address = stage.path("notify.sock");
        let _ = std::fs::remove_file(&address); // of the one before; that it cannot be removed is seen in the next line
        let told = UnixDatagram::bind(&address)
            .map_err(|e| Failure::local(format!("binding {}: {e}", address.display()), "set TMPDIR to a shorter path"))?;
        let mut command = stage.program("claude-peersd", "broker")?;
        command.env("CLAUDE_PEERS_DB", stage.path("peers.db")).env("CLAUDE_PEERS_PORT", "0").env("NOTIFY_SOCKET", &address);
        let mut process = command.stdout(Stdio::null()).spawn().map_err(|e| cannot_run("claude-peersd", &e))?;
        let ready = async {
            tokio::select! {
                ready = readiness(&told) => ready,
                ended = process.wait() => Err(broken(format!("claude-peersd ended before it was ready: {}", how(ended)))),
            }
        };
        timeout(PATIENCE, ready).await.unwrap_or_else(|_| Err(late("claude-peersd was not ready")))?;
        let took = began.elapsed();
        let client = Client::new(stage.socket(), "claude-peers");
        let hello = client.hello().await?;
        Ok((Self { client, process }, hello, took))
    }

    pub async fn kill(mut self) -> Result<(), Failure> {
        self.process.kill().await.map_err(|e| broken(format!("killing claude-peersd: {e}")))
    }

    pub async fn stop(self) -> Result<(), Failure> {
        let _: Done = self.client.post("/v1/stop", None, &serde_json::json!({})).await?;
        ends_well(self.process, "claude-peersd", "which was asked to stop").await
    }
}

/// Waits until a process of ours, of which this is said, ends by itself.
pub async fn ends_well(mut process: Child, name: &str, why: &str) -> Result<(), Failure> {
    match timeout(PATIENCE, process.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(ended) => Err(broken(format!("{name}, {why}, did not end well: {}", how(ended)))),
        Err(_) => Err(late(&format!("{name}, {why}, did not end"))),
    }
}

async fn readiness(told: &UnixDatagram) -> Result<(), Failure> {
    let mut buffer = [0; 4096];
    loop {
        let length = told.recv(&mut buffer).await.map_err(|e| broken(format!("waiting for claude-peersd: {e}")))?;
        if buffer[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

fn how(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|e| e.to_string(), |status| status.to_string())
}

pub fn cannot_run(program: &str, error: &std::io::Error) -> Failure {
    Failure::local(format!("running {program}: {error}"), "install it again")
}

pub fn broken(what: impl Into<String>) -> Failure {
    Failure::local(what, "this is a fault of claude-peers; please report it, with the logs if there are any")
}
