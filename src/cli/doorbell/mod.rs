//! `doorbell`: tells a session that mail waits, for agents that nothing else can wake. It types a line into the session's tmux pane, or
//! prints the line as a background command of the session (`print`).
//!
//! In tmux it types only where the person has started it, for the one session in that pane, and only [`LINE`], never a peer's text. It types only
//! while the agent reads the terminal, its prompt looks as it did when it was empty, the screen stands still and nobody types. In doubt it
//! does not type, and the mail waits. It rings once for the mail that waits, and again for later mail once that has been taken.
//!
//! Ringing proves nothing. The results of our tools show which messages the model was given.

mod mail;
mod pane;
mod print;
mod prompt;

use super::peers;
use crate::{
    client::Client,
    console::{Failure, Out},
    platform::process,
    wire::{Mail, MessageId, Peer, Process, Route, Scope, Status, text::printable_line},
};
use mail::{AWAY, LINE, mail, passes};
use pane::{Pane, Screen};
use prompt::{Holds, Prompt};
use serde_json::json;
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// The pause between two looks at a pane in which the line cannot be typed yet.
const LOOK: Duration = Duration::from_millis(500);
/// How long the screen must stand still: a busy agent shows that it works. And how long nobody must have typed.
const QUIET: Duration = Duration::from_secs(2);
/// The pause before Enter: agents take keys that come all at once for pasted text.
const PASTE: Duration = Duration::from_millis(250);
/// How long the agent may take to show what is typed.
const ECHO: Duration = Duration::from_secs(5);

/// Whom to ring for, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --tmux, start it while the agent's prompt is empty: it remembers how that looks. It types one fixed line, which asks the agent to \
call check_messages, and only into an empty prompt. It ends with the agent; Ctrl-C ends it sooner.

With --print, a Gemini CLI session runs it as a background command, if its user has turned that on. It prints the same line when mail \
waits, and ends with exit code 0; it ends with 7 if the session has ended.

Examples:
  claude-peers doorbell --tmux
  claude-peers doorbell --tmux %3")]
#[group(required = true, multiple = false)]
pub struct Args {
    /// Type into this tmux pane; without PANE, into the only pane with a session that nothing else can wake
    #[arg(long, value_name = "PANE", num_args = 0..=1, default_missing_value = "")]
    pub tmux: Option<String>,
    /// Print the line when mail waits for the session that runs this command, and end
    #[arg(long)]
    pub print: bool,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    match &args.tmux {
        Some(pane) => in_tmux(pane, broker, out).await,
        None => print::run(broker, out).await,
    }
}

async fn in_tmux(pane: &str, broker: &Client, out: Out) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::local("a doorbell types for the person who starts it", "start it in a terminal of your own"));
    }
    let (pane, peer, agent) = find(pane, broker).await?;
    let screen = pane.look().await?;
    let program = peer.agent.as_ref().map_or("", |agent| &agent.name);
    let Some(prompt) = Prompt::empty(&screen, program) else {
        let help = "clear the prompt, wait until the agent is idle, and start the doorbell again";
        return Err(Failure::local(format!("pane {} shows no empty prompt at its cursor", pane.id), help));
    };
    let name = printable_line(&peer.name).into_owned();
    out.aside(&format!("Ringing for {name} in pane {} whenever mail waits. Ctrl-C ends this.", pane.id));
    let mut bell = Bell { pane, prompt, agent, peer, out, still: None, said: "", rung: 0 };
    let ended = bell.watch(broker).await?;
    let answer = json!({ "peer": bell.peer.id, "pane": bell.pane.id, "rung": bell.rung, "ended": ended });
    out.answer(&answer, |_, _| format!("No more ringing for {name}: {ended}.\n"))
}

/// The pane to type into, the session that runs there, and its agent's process.
async fn find(wanted: &str, broker: &Client) -> Result<(Pane, Peer, Process), Failure> {
    let peers = peers::list(broker, Scope::Machine, None).await?.peers;
    let mut found = Vec::new();
    for pane in pane::list(wanted).await? {
        let agents = peers.iter().filter_map(|peer| Some((peer.clone(), pane.agent_of(peer)?)));
        let agents: Vec<(Peer, Process)> = agents.collect();
        match <[_; 1]>::try_from(agents) {
            Ok([(peer, agent)]) => found.push((pane, peer, agent)),
            Err(several) if !wanted.is_empty() && several.len() > 1 => {
                let what = format!("pane {} runs {} sessions, one inside the other", pane.id, several.len());
                return Err(Failure::local(what, "leave the inner one"));
            }
            Err(_) => {}
        }
    }
    if let [(pane, peer, _)] = found.as_slice()
        && !wanted.is_empty()
        && !needs_ringing(peer)
    {
        let (pane, name) = (&pane.id, printable_line(&peer.name));
        let what = format!("{name} in pane {pane} needs no doorbell; {}", printable_line(&peer.delivery_reason));
        return Err(Failure::local(what, "messages reach it by themselves"));
    }
    found.retain(|(_, peer, _)| needs_ringing(peer));
    <[_; 1]>::try_from(found).map(|[one]| one).map_err(|found| none_or_several(wanted, &found))
}

fn none_or_several(wanted: &str, found: &[(Pane, Peer, Process)]) -> Failure {
    if found.is_empty() {
        let what = match wanted {
            "" => "no tmux pane runs, in its foreground, a session that needs a doorbell".to_owned(),
            pane => format!("no session runs in the foreground of pane {pane}"),
        };
        return Failure::local(what, "`claude-peers peers` shows the sessions; those with the delivery `pull` need one");
    }
    let panes = found.iter().map(|(pane, peer, _)| format!("{} ({})", pane.id, printable_line(&peer.name)));
    let panes = panes.collect::<Vec<_>>().join(", ");
    Failure::local(format!("several panes run a session that needs a doorbell: {panes}"), "name one: `--tmux PANE`")
}

/// Whether nothing else wakes the session.
fn needs_ringing(peer: &Peer) -> bool {
    peer.delivery == Route::Pull
}

struct Bell {
    pane: Pane,
    prompt: Prompt,
    agent: Process,
    peer: Peer,
    out: Out,
    /// The last screen, and since when it has looked so.
    still: Option<(Screen, Instant)>,
    /// Why the line is not typed yet, as last said.
    said: &'static str,
    rung: u32,
}

impl Bell {
    /// Rings whenever mail waits. Returns why it has ended.
    async fn watch(&mut self, broker: &Client) -> Result<&'static str, Failure> {
        let mut after: Option<MessageId> = None;
        loop {
            let mail = mail(broker, &self.peer, after.as_ref()).await;
            if !process::is_alive(self.agent) {
                return Ok("the agent has ended");
            }
            let Mail { peer, newest } = match mail {
                Ok(mail) => mail,
                Err(error) if passes(&error) => {
                    sleep(AWAY).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match newest {
                _ if peer.status == Status::Gone => return Ok("the session has ended"),
                _ if peer.status != Status::Connected => sleep(AWAY).await,
                _ if !needs_ringing(&peer) => return Ok("messages reach it by themselves now"),
                None => {}
                Some(newest) => match self.ring().await {
                    Ok(()) => {
                        (after, self.rung, self.still, self.said) = (Some(newest), self.rung + 1, None, "");
                        self.out.aside(&format!("Rang: {} waiting.", peer.waiting));
                    }
                    Err(NotNow::Pane(_)) if !process::is_alive(self.agent) => return Ok("the agent has ended"),
                    Err(NotNow::Pane(failure)) => return Err(failure),
                    Err(NotNow::Because(why)) => {
                        self.say(why);
                        sleep(LOOK).await;
                    }
                    Err(NotNow::Settling) => sleep(LOOK).await,
                },
            }
        }
    }

    /// Says once why mail waits.
    fn say(&mut self, why: &'static str) {
        if std::mem::replace(&mut self.said, why) != why {
            self.out.aside(&format!("Mail waits, not rung yet: {why}."));
        }
    }

    /// Types the line and sends it, if it is certain that this is right.
    async fn ring(&mut self) -> Result<(), NotNow> {
        let screen = self.pane.look().await?;
        let holds = self.check(&screen)?;
        self.stands_still(&screen)?;
        if self.pane.typed_within(QUIET).await? {
            return Err(NotNow::Because("somebody types"));
        }
        if holds == Holds::Line {
            return Ok(self.pane.enter(&screen).await?); // typed before, but shown too late
        }
        self.pane.types(&screen, LINE).await?;
        let typed = Instant::now();
        while typed.elapsed() < ECHO {
            sleep(PASTE).await;
            let screen = self.pane.look().await?;
            if matches!(self.check(&screen), Ok(Holds::Line)) {
                return Ok(self.pane.enter(&screen).await?);
            }
        }
        Err(NotNow::Because("the prompt has changed while the line was typed"))
    }

    /// What the prompt holds, if the agent would read what is typed.
    fn check(&self, screen: &Screen) -> Result<Holds, NotNow> {
        let because = |why| Err(NotNow::Because(why));
        if self.pane.agent_of(&self.peer) != Some(self.agent) {
            return because("another program has the terminal");
        }
        if screen.is_in_mode {
            return because("the pane is scrolled or in copy mode");
        }
        if screen.is_locked {
            return because("the pane takes no input, or shares it with other panes");
        }
        if self.prompt.column + LINE.len() >= screen.width {
            return because("the pane is too narrow");
        }
        self.prompt.holds(screen, LINE).ok_or(NotNow::Because("the prompt is not empty, or the agent is busy"))
    }

    fn stands_still(&mut self, screen: &Screen) -> Result<(), NotNow> {
        match &self.still {
            Some((last, since)) if last == screen && since.elapsed() >= QUIET => Ok(()),
            Some((last, _)) if last == screen => Err(NotNow::Settling),
            last => {
                let why =
                    if last.is_some() { NotNow::Because("the screen moves, so the agent may be busy") } else { NotNow::Settling };
                self.still = Some((screen.clone(), Instant::now()));
                Err(why)
            }
        }
    }
}

/// Why the line is not typed.
#[derive(Debug)]
enum NotNow {
    /// It is not known yet whether the screen stands still.
    Settling,
    /// For this reason, which may pass.
    Because(&'static str),
    Pane(Failure),
}

impl From<Failure> for NotNow {
    fn from(failure: Failure) -> Self {
        Self::Pane(failure)
    }
}
