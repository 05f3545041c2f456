//! `demo`: the main job before the user's eyes, with the real programs and none of the user's files.
//!
//! Promises: everything lives in a temporary directory that is removed at the end; every process ends with the demo, also
//! when it is interrupted; every wait has a bound and ends with an event, none sleeps; a step that fails ends the demo with
//! the reason and the ends of the logs.

pub mod broker;
pub mod session;
pub mod stage;
mod teller;

use crate::{
    console::{
        exit::{Failure, Problem},
        out::Out,
    },
    platform::random,
    wire::{HistoryEntry, MessageState},
};
use broker::{Broker, broken};
use rustix::process::{WaitOptions, wait};
use serde_json::{Value, json};
use session::{Push, Session};
use stage::Stage;
use std::{path::Path, time::Duration};
use teller::Teller;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

fn late(what: &str) -> Failure {
    broken(format!("{what} within {} s", PATIENCE.as_secs()))
}

const PATIENCE: Duration = Duration::from_secs(10);
const NEXT: &str = "\
To have this in Claude Code:
  claude-peers setup
  claude";

pub async fn run(out: Out) -> Result<(), Failure> {
    let stage = Stage::set("demo")?;
    let teller = Teller::new(out);
    let ended = tokio::select! {
        ended = story(&stage, &teller) => Some(ended),
        () = interruption() => None,
    };
    await_processes();
    let Some(ended) = ended else {
        return Err(Failure::local("the demo was interrupted", "nothing is left behind; start it again"));
    };
    match ended {
        Ok(()) => {
            stage.strike()?;
            teller.ending("4 messages, none lost, none shown twice; nothing is left behind.", NEXT)
        }
        Err(output @ Failure::Output(_)) => Err(output),
        Err(failure) => {
            let Problem { what, help } = failure.into();
            Err(Failure::local(format!("the demo failed: {what}"), help + &stage.logs()))
        }
    }
}

/// Waits until every process of the story is gone. They have ended, or were killed when their handles were dropped.
fn await_processes() {
    while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
}

/// Ends when the user or the system wants the demo to end.
async fn interruption() {
    let on = |kind| signal(kind).ok();
    match (on(SignalKind::interrupt()), on(SignalKind::terminate()), on(SignalKind::hangup())) {
        (Some(mut interrupt), Some(mut terminate), Some(mut hangup)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        },
        // Without handlers the signals end this process by themselves; nothing to wait for.
        _ => std::future::pending().await,
    }
}

async fn story(stage: &Stage, teller: &Teller) -> Result<(), Failure> {
    teller.opening(
        "claude-peers demo",
        "Real programs, a private broker, everything in a temporary directory: your own files stay as they are.",
    )?;

    teller.scene("A broker starts")?;
    let (broker, hello, took) = Broker::start(stage).await?;
    teller.step("broker_ready", took, &format!("claude-peersd {} is ready (process {})", hello.version, hello.pid))?;

    teller.scene("Two sessions start, each in a git repository of its own")?;
    let began = Instant::now();
    let web = stage.repository("shop-web", "The shop's web pages").await?;
    let api = stage.repository("shop-api", "The shop's API").await?;
    teller.step("repositories", began.elapsed(), "git made shop-web and shop-api")?;
    let (web_session, api_session) = (random::token(24), random::token(24));
    let (mut a, took) = Session::start(stage, &web, &web_session, "channel").await?;
    teller.step("session_connected", took, "shop-web: claude-peers-mcp started, MCP handshake done")?;
    let (mut b, took) = Session::start(stage, &api, &api_session, "channel").await?;
    teller.step("session_connected", took, "shop-api: claude-peers-mcp started, MCP handshake done")?;

    teller.scene("They say what they work on, and find each other")?;
    let began = Instant::now();
    a.tool("set_summary", json!({ "summary": "Checkout page: shows prices" })).await?;
    b.tool("set_summary", json!({ "summary": "Prices as integer cents" })).await?;
    teller.step("summaries", began.elapsed(), "both have set their summary")?;
    let api_peer = found(&mut a, teller, &api).await?;
    let web_peer = found(&mut b, teller, &web).await?;

    teller.scene("One asks, the other is told at once and answers")?;
    let question = say(&mut a, teller, &api_peer, None, "Is `price` in /orders still a string?").await?;
    arrives(&mut b, teller, &question, ("the call", question.at)).await?;
    let answer = say(&mut b, teller, &web_peer, Some(&question.id), "No: integer cents since this morning.").await?;
    arrives(&mut a, teller, &answer, ("the call", answer.at)).await?;
    delivered(&broker, teller, &question).await?;

    teller.scene("A message is accepted for a session that has ended, and the broker is killed")?;
    let began = Instant::now();
    b.end().await?;
    teller.step("session_ended", began.elapsed(), "shop-api's session has ended")?;
    let notice = say(&mut a, teller, &api_peer, None, "Then I ship the new checkout at noon. Objections?").await?;
    let began = Instant::now();
    broker.kill().await?;
    teller.step("broker_killed", began.elapsed(), "the broker is killed (SIGKILL)")?;

    teller.scene("The broker comes back, the session is resumed, and nothing was lost")?;
    let (broker, hello, took) = Broker::start(stage).await?;
    teller.step("broker_ready", took, &format!("claude-peersd is ready again on the same database (process {})", hello.pid))?;
    let began = Instant::now();
    let (mut b, took) = Session::start(stage, &api, &api_session, "channel").await?;
    teller.step("session_resumed", took, "shop-api's session is resumed: a new process, the same session")?;
    arrives(&mut b, teller, &notice, ("the session's start", began)).await?;
    let reply = say(&mut b, teller, &web_peer, Some(&notice.id), "None. Noon is fine.").await?;
    arrives(&mut a, teller, &reply, ("the call", reply.at)).await?;
    shown_once(&mut b, teller, &api_peer).await?;
    delivered(&broker, teller, &notice).await?;

    teller.scene("Everything ends")?;
    let began = Instant::now();
    a.end().await?;
    b.end().await?;
    broker.stop().await?;
    teller.step("stopped", began.elapsed(), "both sessions and the broker have ended by themselves")
}

/// A message that was accepted, and when it began to be said.
struct Said {
    at: Instant,
    id: String,
    text: String,
}

/// `session` sees the peer in `directory`; gives that peer's id.
async fn found(session: &mut Session, teller: &Teller, directory: &Path) -> Result<String, Failure> {
    let began = Instant::now();
    let listed = session.tool("list_peers", json!({ "scope": "machine" })).await?;
    let mut peers = listed["peers"].as_array().into_iter().flatten();
    let who = &session.name;
    let Some(peer) = peers.find(|peer| peer["cwd"].as_str().map(Path::new) == Some(directory)) else {
        return Err(broken(format!("{who} does not see {} in its list: {listed}", directory.display())));
    };
    let text = |key: &str| peer[key].as_str().unwrap_or("-").to_owned();
    let seen = format!("{who} sees {} ({}, branch {}): {}", text("name"), text("id"), text("gitBranch"), text("summary"));
    teller.step("peer_found", began.elapsed(), &seen)?;
    Ok(text("id"))
}

async fn say(session: &mut Session, teller: &Teller, to: &str, reply_to: Option<&str>, text: &str) -> Result<Said, Failure> {
    teller.says(&session.name, text)?;
    let at = Instant::now();
    let mut arguments = json!({ "targetPeerId": to, "message": text });
    if let Some(id) = reply_to {
        arguments["replyTo"] = id.into();
    }
    let answer = session.tool("send_message", arguments).await?;
    let (true, Some(id), Some(state)) = (answer["success"] == true, answer["messageId"].as_str(), answer["state"].as_str())
    else {
        return Err(broken(format!("send_message of {} was not accepted: {answer}", session.name)));
    };
    teller.step("accepted", at.elapsed(), &format!("accepted and on disk as {id} ({state})"))?;
    if let Some(warning) = answer["warning"].as_str() {
        teller.warning(warning)?;
    }
    Ok(Said { at, id: id.to_owned(), text: text.to_owned() })
}

/// The message is pushed into `session`; the time is counted from `since`.
async fn arrives(session: &mut Session, teller: &Teller, said: &Said, since: (&str, Instant)) -> Result<(), Failure> {
    let Push { at, text, id } = session.push().await?;
    let (who, (since, began)) = (&session.name, since);
    if id != said.id || text != said.text {
        return Err(broken(format!("{who} was to be pushed {} and was pushed {id}: {text}", said.id)));
    }
    teller.step("pushed", at.saturating_duration_since(began), &format!("pushed into {who}'s session, counted from {since}"))
}

/// The sender's receipt says that the message was delivered.
async fn delivered(broker: &Broker, teller: &Teller, said: &Said) -> Result<(), Failure> {
    let began = Instant::now();
    let entry: HistoryEntry = broker.client.get(&format!("/v1/messages/{}", said.id), None).await?;
    let (id, state) = (&said.id, entry.receipt.state);
    if state != MessageState::Delivered || entry.receipt.delivered_at.is_none() {
        return Err(broken(format!("the receipt of {id} says {state}, not delivered")));
    }
    teller.step("delivered", began.elapsed(), &format!("the receipt of {id} says: delivered, confirmed by the reply"))
}

/// The resumed session is who it was, and nothing it was shown comes again.
async fn shown_once(session: &mut Session, teller: &Teller, id: &str) -> Result<(), Failure> {
    let began = Instant::now();
    let checked = session.tool("check_messages", json!({})).await?;
    if checked["messages"] != Value::Array(Vec::new()) {
        return Err(broken(format!("shop-api was shown a message again: {checked}")));
    }
    teller.step("shown_once", began.elapsed(), "check_messages is empty: the message was shown exactly once")?;
    let began = Instant::now();
    let listed = session.tool("list_peers", json!({ "scope": "machine" })).await?;
    if listed["self"]["id"] != id {
        return Err(broken(format!("the resumed session is not {id} any more: {}", listed["self"])));
    }
    if let Some(again) = session.pushed.front() {
        return Err(broken(format!("shop-api was pushed {} that nobody sent it: {}", again.id, again.text)));
    }
    teller.step("same_peer", began.elapsed(), &format!("shop-api is still {id}"))
}
