//! Writes waiting messages into the inbox of this session's client.
//!
//! The broker decides when (`broker::door`). Messages are written oldest first, one frame a sender. A frame counts as written when the
//! client has taken all of it; that makes its messages *offered* and no more. Messages that could not be written are released.

use super::{
    Initialized,
    acknowledge::{Acknowledger, Handover},
    answers::Answers,
    facts::{self, Inbox},
    link::{Link, Registration, mends_itself},
    log,
};
use crate::{
    agents::{claude::inbox, shown::Shown},
    platform::random,
    wire::{Inbound, Outcome, PeerId, Route, Take, Taken},
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// Most text in one hand-over, in bytes: the prompt hook can still read it when much of it has to be escaped.
const FRAME_BYTES: u32 = 24 * 1024;
/// Length of a lease.
const LEASE_LENGTH: usize = 24;
/// How long one request waits for messages, in seconds.
const LONGEST_WAIT: u32 = 3_600;
/// How soon after a frame the door checks whether the session idles without having let it in, in seconds. Doubles each time.
const FIRST_LOOK: u32 = 3;
/// The pause after a failure, and after one that will happen again.
const PAUSE: Duration = Duration::from_millis(200);
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// The writer into a session's inbox.
pub struct Door {
    link: Arc<Link>,
    acknowledger: Arc<Acknowledger>,
    initialized: Initialized,
}

impl Door {
    /// A writer of the messages behind `link`.
    pub fn new(link: Arc<Link>, acknowledger: Arc<Acknowledger>, initialized: Initialized) -> Self {
        Self { link, acknowledger, initialized }
    }

    /// Writes messages as they come, for as long as this process is served.
    pub async fn run(&self) {
        self.initialized.wait().await;
        let mut answers = Answers::new(self.link.clone());
        let (mut lease, mut look, mut idle) = (random::token(LEASE_LENGTH), None, false);
        while let Some((up, inbox)) = self.link.with_inbox().await {
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
                () = self.link.leaves(&up) => continue, // the same lease gives the same messages
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
                answers.listen(&up, &inbox, sender, None);
            }
            if taken.messages.is_empty() {
                idle = taken.pending && look.is_some() && facts::is_idle(inbox.agent);
                look = look.filter(|_| taken.pending).map(|look| (look * 2).min(LONGEST_WAIT));
                continue;
            }
            lease = random::token(LEASE_LENGTH);
            (look, idle) = (Some(FIRST_LOOK), false);
            if let Err(error) = self.write(&up, &inbox, taken.messages, &mut answers).await {
                log!("writing into the session's inbox: {error}");
                sleep(PAUSE).await;
            }
        }
    }

    /// Writes one frame a sender. If one fails, its messages and those of the frames after it are released.
    async fn write(
        &self,
        up: &Registration,
        inbox: &Inbox,
        messages: Vec<Inbound>,
        answers: &mut Answers,
    ) -> std::io::Result<()> {
        self.acknowledger.forget(&messages);
        let frames = by_sender(messages).into_iter().map(|(sender, messages)| {
            let shown: Vec<Shown> = messages.into_iter().map(Shown::brief).collect();
            let written = shown.iter().map(|shown| shown.became(Outcome::Offered)).collect();
            (sender, shown, Handover::taken(self.acknowledger.clone(), Route::Inbox, written))
        });
        for (sender, shown, handover) in frames.collect::<Vec<_>>() {
            let newest = shown.last().map(|shown| shown.message.id.clone());
            let address = answers.listen(up, inbox, &sender, newest);
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
