//! A trial with the real programs in a temporary directory: a broker, sessions, a message, its receipt.

mod broker;
mod session;
mod stage;

pub use broker::Broker;
pub use session::{Push, Session};
pub use stage::Stage;

use crate::{
    client::Client,
    console::exit::{Failure, Problem},
    platform::random,
    wire::{HistoryEntry, MessageState},
};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};
use tokio::{process::Child, time::timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends a message from one session to another, through the broker behind `service` or a private one; the time until it was received.
///
/// The two peers are the same every time, so that repeated trials leave no more behind than one.
pub async fn round_trip(service: Option<PathBuf>) -> Result<Duration, Failure> {
    let stage = Stage::new("setup")?;
    let (stage, own) = match service {
        Some(socket) => (stage.with_broker_at(socket), None),
        None => {
            let (broker, ..) = Broker::start(&stage).await?;
            (stage, Some(broker))
        }
    };
    let delivered = deliver(&stage).await;
    if let Some(broker) = own {
        broker.stop().await?;
    }
    let time = delivered.map_err(|failure| {
        let Problem { what, help } = failure.into();
        Problem::new(what + &stage.logs(), help)
    })?;
    stage.remove()?;
    Ok(time)
}

async fn deliver(stage: &Stage) -> Result<Duration, Failure> {
    let mut sender = start(stage, "setup-check-sender").await?;
    let mut receiver = start(stage, "setup-check-receiver").await?;
    let listed = receiver.tool("list_peers", json!({ "scope": "directory" })).await?;
    let peer = listed["self"]["id"].as_str().ok_or_else(|| broken(format!("the broker does not list its session: {listed}")))?;
    // A token, as the broker refuses repeated texts.
    let text = format!("A test message of `claude-peers setup`: {}", random::token(8));
    let began = Instant::now();
    let sent = sender.send(peer, None, &text).await?;
    let checked = receiver.tool("check_messages", json!({})).await?;
    let time = began.elapsed();
    let mut messages = checked["messages"].as_array().into_iter().flatten();
    if !messages.any(|received| received["id"] == *sent.id && received["text"] == *text) {
        let got = Value::from(checked["messages"].to_string());
        return Err(broken(format!("{} was accepted, but its recipient got {got}", sent.id)));
    }
    // A session that ends has acknowledged its mail.
    receiver.end().await?;
    sender.end().await?;
    confirm(&Client::new(stage.socket(), "claude-peers"), &sent.id).await?;
    Ok(time)
}

async fn start(stage: &Stage, name: &str) -> Result<Session, Failure> {
    Session::start(stage, &stage.folder(name)?, &format!("claude-peers-{name}"), "pull").await
}

/// Checks that the receipt of a message says that it was delivered.
pub async fn confirm(client: &Client, id: &str) -> Result<(), Failure> {
    let entry: HistoryEntry = client.get(&format!("/v1/messages/{id}"), None).await?;
    match (entry.receipt.state, entry.receipt.delivered_at) {
        (MessageState::Delivered, Some(_)) => Ok(()),
        (state, _) => Err(broken(format!("the receipt of {id} says {state}, not delivered"))),
    }
}

/// Waits for a program of ours that should end by itself.
async fn ends_well(mut process: Child, name: &str) -> Result<(), Failure> {
    match timeout(PATIENCE, process.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(ended) => Err(broken(format!("{name} failed when it was stopped: {}", how(ended)))),
        Err(_) => Err(late(&format!("{name} did not stop"))),
    }
}

fn how(ended: std::io::Result<ExitStatus>) -> String {
    ended.map_or_else(|e| e.to_string(), |status| status.to_string())
}

fn cannot_run(program: &str, error: &std::io::Error) -> Failure {
    Failure::local(format!("running {program}: {error}"), "install it again")
}

pub fn broken(what: impl Into<String>) -> Failure {
    Failure::local(what, "this is a bug in claude-peers; please report it, with the logs if there are any")
}

fn late(what: &str) -> Failure {
    broken(format!("{what} within {} s", PATIENCE.as_secs()))
}
