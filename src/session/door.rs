//! Lets waiting messages into this session, through its open door.
//!
//! The broker decides when to write (`broker::inbox`). Messages are written oldest first, in one frame per sender. A frame counts as
//! written when the agent has taken all of it; its messages are then only *offered*. Messages that could not be written are released.
//! Claude Code's prompt hook tells the broker which messages the model was shown. For other agents, this process does.

use super::{
    acknowledge::{Acknowledger, Handover},
    answers::Answers,
    doors::Door,
    facts,
    link::{AT_ONCE, Link, Registration, mends_itself},
    log,
    mail::LEASE_LENGTH,
};
use crate::{
    agents::{
        Fate,
        claude::inbox,
        shown::{self, Shown},
        socket,
    },
    platform::random,
    wire::{Code, Hook, Hooked, Inbound, MessageId, Outcome, Route, Take, Taken, text::printable_line},
};
use std::{io, sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

/// Most bytes of text in one hand-over. The prompt hook can still read this much when most of it has to be escaped.
const FRAME_BYTES: u32 = 24 * 1024;
/// How long one request waits for messages, in seconds.
const LONGEST_WAIT: u32 = 3_600;
/// Seconds after a frame until the door checks for an idle session that has not let the frame in. Doubles each time.
const FIRST_LOOK: u32 = 3;
/// The pauses after a passing failure and after a lasting one.
const PAUSE: Duration = Duration::from_millis(200);
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// Writes messages as they arrive, for as long as this process serves the session.
pub async fn run(link: Arc<Link>, acknowledger: Arc<Acknowledger>) {
    link.initialized.wait().await;
    let mut writer = Writer {
        answers: Answers::new(link.clone()),
        acknowledger,
        link: link.clone(),
        lost: Arc::default(),
        fates: JoinSet::new(),
    };
    let (mut lease, mut look, mut idle, mut was_lost) = (random::token(LEASE_LENGTH), None, false, false);
    let mut pause = PAUSE;
    while let Some((up, door)) = link.with_door().await {
        let wait = look.unwrap_or(LONGEST_WAIT);
        let request = Take {
            lease: lease.clone(),
            route: Route::Inbox,
            max_bytes: Some(FRAME_BYTES),
            wait_seconds: Some(wait),
            idle,
            inbound: facts::inbound(link.client()).ok(),
        };
        let taken = tokio::select! {
            taken = up.post::<Taken>("/v1/take", &request, Duration::from_secs(wait.into())) => taken,
            () = link.leaves(&up) => continue, // the same lease returns the same messages
            () = writer.lost.notified() => {
                (idle, was_lost) = (true, true);
                writer.acknowledger.settle().await; // the broker first has to know that the frame was written
                continue;
            }
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) if mends_itself(&error) => {
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => {
                log!("taking mail for the session: {error}");
                sleep(LONG_PAUSE).await;
                continue;
            }
        };
        if let Door::Claude(inbox) = &door {
            for sender in &taken.held {
                writer.answers.listen(&up, inbox, sender, None);
            }
        }
        if taken.messages.is_empty() {
            idle = taken.pending && look.is_some() && (was_lost || is_idle(&door));
            look = look.filter(|_| taken.pending).map(|look| (look * 2).min(LONGEST_WAIT));
            continue;
        }
        let taken_under = std::mem::replace(&mut lease, random::token(LEASE_LENGTH));
        (look, idle, was_lost) = (Some(FIRST_LOOK), false, false);
        writer.lost = Arc::default(); // what became of earlier frames is known
        pause = match writer.write(&up, &door, taken_under, taken.messages).await {
            Ok(()) => PAUSE,
            Err(error) => {
                log!("writing into the session: {error}");
                sleep(pause).await;
                (pause * 2).min(LONG_PAUSE)
            }
        };
    }
}

/// Whether the session has ended its turn, as far as it tells.
fn is_idle(door: &Door) -> bool {
    match door {
        Door::Claude(inbox) => facts::is_idle(inbox.agent),
        Door::Plugin(plugin, _) => plugin.is_idle(),
        Door::Qwen(_) | Door::Codex(..) => false,
    }
}

struct Writer {
    answers: Answers,
    acknowledger: Arc<Acknowledger>,
    link: Arc<Link>,
    /// A frame of the last hand-over was not shown and never will be.
    lost: Arc<Notify>,
    /// Waits for what becomes of frames.
    fates: JoinSet<()>,
}

impl Writer {
    /// Writes one frame per sender. If one fails, its messages and those of later frames are released.
    async fn write(&mut self, up: &Registration, door: &Door, lease: String, messages: Vec<Inbound>) -> io::Result<()> {
        let frames = by_sender(messages).into_iter().map(|messages| {
            let shown: Vec<Shown> = messages.into_iter().map(Shown::brief).collect();
            let messages = shown.iter().map(|shown| shown.became(Outcome::Offered)).collect();
            let (acknowledger, lease) = (self.acknowledger.clone(), Some(lease.clone()));
            (shown, Handover { acknowledger, route: Route::Inbox, messages, lease })
        });
        for (shown, handover) in frames.collect::<Vec<_>>() {
            self.show(up, door, &shown).await?;
            handover.written();
        }
        Ok(())
    }

    /// Writes one frame with these messages of one sender.
    async fn show(&mut self, up: &Registration, door: &Door, shown: &[Shown]) -> io::Result<()> {
        let Some(Shown { message: newest, .. }) = shown.last() else { return Ok(()) };
        let from = &newest.from;
        match door {
            Door::Claude(inbox) => {
                let address = self.answers.listen(up, inbox, &from.id, Some(newest.id.clone()));
                let frame = inbox::frame(shown, address.as_deref(), inbox::Mode::Unsaid);
                socket::post(&inbox.path, inbox.agent, &frame).await
            }
            Door::Qwen(inbox) => {
                let place =
                    inbox.post(&from.name, &shown::frame(shown)).await.inspect_err(|_| self.link.door_fails.notify_one())?;
                let (inbox, messages) = (inbox.clone(), ids(shown));
                self.report(shown, async move { inbox.shows(place, messages).await });
                Ok(())
            }
            Door::Plugin(plugin, session) => {
                let title = format!("Message from {}", printable_line(&from.name));
                let fate = plugin.show(session, random::token(LEASE_LENGTH), &title, &shown::frame_with_notice(shown)).await?;
                self.report(shown, fate);
                Ok(())
            }
            Door::Codex(daemon, thread) => {
                let title = format!("Message from {}", printable_line(&from.name));
                let fate = daemon.show(thread, &title, &shown::frame_with_notice(shown)).await;
                self.report(shown, fate.inspect_err(|_| self.link.door_fails.notify_one())?);
                Ok(())
            }
        }
    }

    /// Waits in the background for what becomes of these messages, and tells the broker.
    fn report(&mut self, shown: &[Shown], fate: impl Future<Output = Fate> + Send + 'static) {
        let (link, lost, messages) = (self.link.clone(), self.lost.clone(), ids(shown));
        self.fates.spawn(async move {
            match fate.await {
                Ok(()) => were_shown(&link, messages).await,
                Err(why) => {
                    log!("a message was not shown: {}", printable_line(&why));
                    lost.notify_one();
                }
            }
        });
        while self.fates.try_join_next().is_some() {}
    }
}

/// Tells the broker that the model was shown these messages.
async fn were_shown(link: &Link, messages: Vec<MessageId>) {
    let hook = Hook {
        event: "shown".to_owned(),
        problem: None,
        session_id: None,
        cwd: None,
        permission_mode: None,
        messages,
        is_complete: false,
    };
    while let Err(error) = link.post::<Hooked>("/v1/hook", &hook, AT_ONCE).await {
        log!("telling which messages were shown: {error}");
        match error.code {
            _ if mends_itself(&error) => sleep(PAUSE).await,
            Code::Internal => sleep(LONG_PAUSE).await, // its disk may be full
            _ => return,
        }
    }
}

fn ids(shown: &[Shown]) -> Vec<MessageId> {
    shown.iter().map(|shown| shown.message.id.clone()).collect()
}

/// The messages of each sender, in the order in which they came.
fn by_sender(messages: Vec<Inbound>) -> Vec<Vec<Inbound>> {
    let mut senders: Vec<Vec<Inbound>> = Vec::new();
    for message in messages {
        match senders.iter_mut().find(|sender| sender[0].from.id == message.from.id) {
            Some(sender) => sender.push(message),
            None => senders.push(vec![message]),
        }
    }
    senders
}
