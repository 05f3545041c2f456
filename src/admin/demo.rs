//! `demo`: shows the main job live, with the real programs and none of the user's files.
//!
//! All files are in a temporary directory that is removed at the end. Every process ends with the demo, even if it is
//! interrupted. Waits are bounded and end with an event. A failed step ends the demo with the reason and the last lines of the
//! logs.

use super::probe::{Broker, Push, Session, Stage, broken, confirm};
use crate::{
    console::{Columns, Failure, Out, Report, Row, Tone},
    platform::random,
    wire::text::printable_line,
};
use rustix::process::{WaitOptions, wait};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

const NEXT: &str = "\
To have this in Claude Code:
  claude-peers setup
  claude";

pub async fn run(out: Out) -> Result<(), Failure> {
    let stage = Stage::new("demo")?;
    let teller = Teller { out, began: Instant::now() };
    let ended = tokio::select! {
        ended = story(&stage, &teller) => Some(ended),
        () = interruption() => None,
    };
    // The processes have ended, or dropping their handles has killed them: wait for them.
    while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
    match ended {
        None => Err(Failure::local("the demo was interrupted", "it leaves nothing behind; start it again")),
        Some(Ok(())) => {
            stage.remove()?;
            teller.ending("4 messages, none lost, none shown twice; nothing is left behind.")
        }
        Some(Err(Failure { report: Some(Report { message, help, .. }), .. })) => {
            Err(Failure::local(format!("the demo failed: {message}"), help.unwrap_or_default() + &stage.logs()))
        }
        Some(Err(failure)) => Err(failure),
    }
}

/// Resolves when the user or the system asks the demo to end.
async fn interruption() {
    let on = |kind| signal(kind).ok();
    match (on(SignalKind::interrupt()), on(SignalKind::terminate()), on(SignalKind::hangup())) {
        (Some(mut interrupt), Some(mut terminate), Some(mut hangup)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        },
        // Without handlers these signals end the process directly.
        _ => std::future::pending().await,
    }
}

async fn story(stage: &Stage, teller: &Teller) -> Result<(), Failure> {
    let about = "Real programs, a private broker, everything in a temporary directory: your own files stay as they are.";
    teller.out.human(|look| format!("{}\n{}\n", look.paint(Tone::Strong, "claude-peers demo"), look.paint(Tone::Dim, about)))?;

    teller.scene("A broker starts")?;
    let broker = start_broker(stage, teller, "is ready").await?;

    teller.scene("Two sessions start, each in a git repository of its own")?;
    let repositories = async { Ok((stage.repository("shop-web").await?, stage.repository("shop-api").await?)) };
    let (web, api) = teller.timed("repositories", repositories, |_| "git made shop-web and shop-api".into()).await?;
    let (web_session, api_session) = (random::token(24), random::token(24));
    let connected = |session: &Session| format!("{}: claude-peers-mcp started, MCP handshake done", session.name);
    let mut a = teller.timed("session_connected", Session::start(stage, &web, &web_session, "channel"), connected).await?;
    let mut b = teller.timed("session_connected", Session::start(stage, &api, &api_session, "channel"), connected).await?;

    teller.scene("They say what they work on, and find each other")?;
    let summaries = async {
        a.tool("set_summary", json!({ "summary": "Checkout page: shows prices" })).await?;
        b.tool("set_summary", json!({ "summary": "Prices as integer cents" })).await
    };
    teller.timed("summaries", summaries, |_| "both have set their summary".into()).await?;
    let api_peer = find(&mut a, teller, &api).await?;
    let web_peer = find(&mut b, teller, &web).await?;

    teller.scene("One asks; the other gets it at once and answers")?;
    let question = say(&mut a, teller, &api_peer, None, "Is `price` in /orders still a string?").await?;
    arrives(&mut b, teller, &question, ("the call", question.at)).await?;
    let answer = say(&mut b, teller, &web_peer, Some(&question.id), "No: integer cents since this morning.").await?;
    arrives(&mut a, teller, &answer, ("the call", answer.at)).await?;
    delivered(&broker, teller, &question).await?;

    teller.scene("A message is accepted for a session that has ended, and the broker is killed")?;
    teller.timed("session_ended", b.end(), |()| "shop-api's session has ended".into()).await?;
    let notice = say(&mut a, teller, &api_peer, None, "Then I ship the new checkout at noon. Objections?").await?;
    teller.timed("broker_killed", broker.kill(), |()| "the broker is killed (SIGKILL)".into()).await?;

    teller.scene("The broker comes back, the session is resumed, and nothing was lost")?;
    let broker = start_broker(stage, teller, "is ready again on the same database").await?;
    let began = Instant::now();
    let resumed = |_: &Session| "shop-api's session is resumed: a new process, the same session".into();
    let mut b = teller.timed("session_resumed", Session::start(stage, &api, &api_session, "channel"), resumed).await?;
    arrives(&mut b, teller, &notice, ("the session's start", began)).await?;
    let reply = say(&mut b, teller, &web_peer, Some(&notice.id), "None. Noon is fine.").await?;
    arrives(&mut a, teller, &reply, ("the call", reply.at)).await?;
    shown_once(&mut b, teller, &api_peer).await?;
    delivered(&broker, teller, &notice).await?;

    teller.scene("Everything ends")?;
    let end = async {
        a.end().await?;
        b.end().await?;
        broker.stop().await
    };
    teller.timed("stopped", end, |()| "both sessions and the broker have ended by themselves".into()).await
}

async fn start_broker(stage: &Stage, teller: &Teller, ready: &str) -> Result<Broker, Failure> {
    let started = teller.timed("broker_ready", Broker::start(stage), |(_, hello)| {
        format!("claude-peersd {} {ready} (process {})", hello.version, hello.pid)
    });
    Ok(started.await?.0)
}

/// An accepted message, and the time when the call began.
struct Said {
    at: Instant,
    id: String,
    text: String,
}

async fn list(session: &mut Session) -> Result<Value, Failure> {
    session.tool("list_peers", json!({ "scope": "machine" })).await
}

/// `session` sees the peer in `directory`; returns that peer's id.
async fn find(session: &mut Session, teller: &Teller, directory: &Path) -> Result<String, Failure> {
    let began = Instant::now();
    let listed = list(session).await?;
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
    let who = format!("{}:", session.name);
    teller.out.human(|look| format!("{:15}{} “{}”\n", "", look.paint(Tone::Dim, who), printable_line(text)))?;
    let at = Instant::now();
    let accepted = teller.timed("accepted", session.send(to, reply_to, text), |sent| {
        let warning = sent.warning.as_ref().map(|warning| format!("; {warning}")).unwrap_or_default();
        format!("accepted and on disk as {} ({}){warning}", sent.id, sent.state)
    });
    Ok(Said { at, id: accepted.await?.id, text: text.to_owned() })
}

/// Waits until the message is pushed into `session`; counts the time from `since`.
async fn arrives(session: &mut Session, teller: &Teller, said: &Said, since: (&str, Instant)) -> Result<(), Failure> {
    let Push { at, text, id } = session.push().await?;
    let (who, (since, began)) = (&session.name, since);
    if id != said.id || text != said.text {
        return Err(broken(format!("{who} was to be pushed {} and was pushed {id}: {text}", said.id)));
    }
    let took = at.saturating_duration_since(began);
    teller.step("pushed", took, &format!("pushed into {who}'s session, counted from {since}"))
}

async fn delivered(broker: &Broker, teller: &Teller, said: &Said) -> Result<(), Failure> {
    let text = format!("the receipt of {} says: delivered, confirmed by the reply", said.id);
    teller.timed("delivered", confirm(&broker.client, &said.id), |()| text).await
}

/// The resumed session is the same peer and gets no message twice.
async fn shown_once(session: &mut Session, teller: &Teller, id: &str) -> Result<(), Failure> {
    let checked = async {
        match session.tool("check_messages", json!({})).await? {
            checked if checked["messages"] == json!([]) => Ok(()),
            checked => Err(broken(format!("shop-api was shown a message again: {checked}"))),
        }
    };
    teller.timed("shown_once", checked, |()| "check_messages is empty: the message was shown exactly once".into()).await?;
    let listed = async {
        match &list(session).await?["self"] {
            peer if peer["id"] == id => Ok(()),
            peer => Err(broken(format!("the resumed session is not {id} any more: {peer}"))),
        }
    };
    teller.timed("same_peer", listed, |()| format!("shop-api is still {id}")).await?;
    match session.pushed() {
        Some(again) => Err(broken(format!("shop-api was pushed {} that nobody sent it: {}", again.id, again.text))),
        None => Ok(()),
    }
}

/// Reports progress: scenes and steps for people, a line of JSON per step for programs.
struct Teller {
    out: Out,
    began: Instant,
}

impl Teller {
    fn scene(&self, title: &str) -> Result<(), Failure> {
        self.out.human(|look| format!("\n{}\n", look.paint(Tone::Strong, title)))
    }

    /// Reports a completed step.
    async fn timed<T>(
        &self,
        step: &str,
        doing: impl Future<Output = Result<T, Failure>>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let done = doing.await?;
        self.step(step, began.elapsed(), &text(&done))?;
        Ok(done)
    }

    fn step(&self, step: &str, took: Duration, text: &str) -> Result<(), Failure> {
        let ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        if self.out.json {
            return self.out.json(&json!({ "step": step, "ms": ms, "text": text }));
        }
        let time = format!("{ms:>7.1} ms");
        self.out.human(|look| Row { mark: (Tone::Good, "  ✓"), name: &time, text, help: None }.render(Columns(3, 10), look))
    }

    fn ending(&self, text: &str) -> Result<(), Failure> {
        let took = self.began.elapsed();
        if self.out.json {
            return self.step("done", took, text);
        }
        let what = format!("{text} It took {:.1} s.", took.as_secs_f64());
        self.out.human(|look| format!("\n{}\n{NEXT}\n", look.paint(Tone::Good, &what)))
    }
}
