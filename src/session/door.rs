//! Writes waiting messages into the inbox of this session's client.
//!
//! The broker decides when to write (`broker::door`). Messages are written oldest first, in one frame per sender. A frame counts
//! as written when the client has taken all of it; its messages are then only *offered*. Messages that could not be written are
//! released.

use super::{
    acknowledge::{Acknowledger, Handover},
    answers::Answers,
    facts::{self, Inbox},
    link::{Link, Registration, mends_itself},
    log,
    mail::LEASE_LENGTH,
};
use crate::{
    agents::{claude::inbox, shown::Shown},
    platform::random,
    wire::{Inbound, Outcome, PeerId, Route, Take, Taken},
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

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
    let mut door = Door { answers: Answers::new(link.clone()), acknowledger };
    let (mut lease, mut look, mut idle) = (random::token(LEASE_LENGTH), None, false);
    while let Some((up, inbox)) = link.with_inbox().await {
        let wait = look.unwrap_or(LONGEST_WAIT);
        let request = Take {
            lease: lease.clone(),
            route: Route::Inbox,
            max_bytes: Some(FRAME_BYTES),
            wait_seconds: Some(wait),
            idle,
            inbound: facts::inbound().ok(),
        };
        let taken = tokio::select! {
            taken = up.post::<Taken>("/v1/take", &request, Duration::from_secs(wait.into())) => taken,
            () = link.leaves(&up) => continue, // the same lease returns the same messages
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) if mends_itself(&error) => {
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => {
                log!("taking mail for the inbox: {error}");
                sleep(LONG_PAUSE).await;
                continue;
            }
        };
        for sender in &taken.held {
            door.answers.listen(&up, &inbox, sender, None);
        }
        if taken.messages.is_empty() {
            idle = taken.pending && look.is_some() && facts::is_idle(inbox.agent);
            look = look.filter(|_| taken.pending).map(|look| (look * 2).min(LONGEST_WAIT));
            continue;
        }
        let taken_under = std::mem::replace(&mut lease, random::token(LEASE_LENGTH));
        (look, idle) = (Some(FIRST_LOOK), false);
        if let Err(error) = door.write(&up, &inbox, taken_under, taken.messages).await {
            log!("writing into the session's inbox: {error}");
            sleep(PAUSE).await;
        }
    }
}

struct Door {
    answers: Answers,
    acknowledger: Arc<Acknowledger>,
}

impl Door {
    /// Writes one frame per sender. If one fails, its messages and those of later frames are released.
    async fn write(&mut self, up: &Registration, inbox: &Inbox, lease: String, messages: Vec<Inbound>) -> std::io::Result<()> {
        let frames = by_sender(messages).into_iter().map(|(sender, messages)| {
            let shown: Vec<Shown> = messages.into_iter().map(Shown::brief).collect();
            let messages = shown.iter().map(|shown| shown.became(Outcome::Offered)).collect();
            let (acknowledger, lease) = (self.acknowledger.clone(), Some(lease.clone()));
            let handover = Handover { acknowledger, route: Route::Inbox, messages, lease };
            (sender, shown, handover)
        });
        for (sender, shown, handover) in frames.collect::<Vec<_>>() {
            let newest = shown.last().map(|shown| shown.message.id.clone());
            let address = self.answers.listen(up, inbox, &sender, newest);
            let frame = inbox::frame(&shown, address.as_deref(), inbox::Mode::Unsaid);
            inbox::post(&inbox.path, inbox.agent, &frame).await?;
            handover.written();
        }
        Ok(())
    }
}

/// The messages of each sender, in the order in which they came.
fn by_sender(messages: Vec<Inbound>) -> Vec<(PeerId, Vec<Inbound>)> {
    let mut senders: Vec<(PeerId, Vec<Inbound>)> = Vec::new();
    for message in messages {
        match senders.iter_mut().find(|(sender, _)| *sender == message.from.id) {
            Some((_, messages)) => messages.push(message),
            None => senders.push((message.from.id.clone(), vec![message])),
        }
    }
    senders
}
