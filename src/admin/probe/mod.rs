//! A trial with the real programs in a temporary directory: a broker, sessions, a message, its receipt.

mod session;
mod stage;

pub use session::{Push, Session};
pub use stage::{Broker, Stage, broken};

use crate::{
    client::Client,
    console::{Failure, Report},
    platform::random,
    wire::{HistoryEntry, MessageState},
};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// Sends a message between two sessions, through the broker at `socket`. Returns the time until it was
/// received.
///
/// The two peers are the same every time, so repeated trials leave no more behind than one trial.
pub async fn round_trip(socket: PathBuf) -> Result<Duration, Failure> {
    let mut stage = Stage::new("setup")?;
    stage.socket = socket;
    let time = deliver(&stage).await.map_err(|failure| {
        let Report { message, help, .. } = failure.report.unwrap_or_default();
        Failure::local(message + &stage.logs(), help.unwrap_or_default())
    })?;
    stage.remove()?;
    Ok(time)
}

async fn deliver(stage: &Stage) -> Result<Duration, Failure> {
    let mut sender = start(stage, "setup-check-sender").await?;
    let mut receiver = start(stage, "setup-check-receiver").await?;
    let listed = receiver.tool("list_peers", json!({ "scope": "directory" })).await?;
    let peer = listed["self"]["id"].as_str().ok_or_else(|| broken(format!("the broker does not list its session: {listed}")))?;
    // A random token, because the broker refuses repeated texts.
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
    confirm(&Client::new(stage.socket.clone(), "claude-peers"), &sent.id).await?;
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
