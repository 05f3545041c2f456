//! Writing what waits into the inbox of this session's own client.
//!
//! Promises: what is written comes from the broker, oldest first, one frame a sender, and the broker says when (`broker::door`);
//! a frame counts as written when the client has taken all of it, and as no more than that: its messages are *offered*. What could
//! not be written is released.

use super::{
    acknowledge::{Acknowledger, Handover},
    answers::Answers,
    facts::{self, Inbox},
    link::{Link, Up, mends_itself},
    log,
};
use crate::{
    agents::{claude::inbox, shown::Shown},
    platform::random,
    wire::{Inbound, Outcome, PeerId, Route, Take, Taken},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::SetOnce, time::sleep};

/// Most text in one hand-over, in bytes: with all that may have to be made visible in it, the prompt hook still reads it.
const FRAME_BYTES: u32 = 24 * 1024;
/// Length of the random name of a hand-over.
const LEASE_LENGTH: usize = 24;
/// How long one request waits for messages, in seconds.
const LONGEST_WAIT: u32 = 3_600;
/// How soon after a frame the session is looked at, in seconds: whether it idles without having let it in. Then ever later.
const FIRST_LOOK: u32 = 3;
/// The pause after a request or a frame that failed, and after one that will fail again.
const PAUSE: Duration = Duration::from_millis(200);
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// The writer into a session's inbox.
pub struct Door {
    link: Arc<Link>,
    acknowledger: Arc<Acknowledger>,
    initialized: SetOnce<()>,
}

impl Door {
    /// A writer of what waits behind `link`.
    pub fn new(link: Arc<Link>, acknowledger: Arc<Acknowledger>) -> Self {
        Self { link, acknowledger, initialized: SetOnce::new() }
    }

    /// The client has said that it is initialized.
    pub fn open(&self) {
        let _ = self.initialized.set(()); // saying it twice changes nothing
    }

    /// Writes whatever comes, until this process is not served any more.
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
                taken = up.post_waiting::<Taken>("/v1/take", &request, Duration::from_secs(wait.into())) => taken,
                () = self.link.leaves(&up) => continue, // the same lease gives the same messages
            };
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    if !mends_itself(&error) {
                        log!("taking mail for the inbox: {error}");
                    }
                    sleep(if mends_itself(&error) { PAUSE } else { LONG_PAUSE }).await;
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

    async fn write(&self, up: &Up, inbox: &Inbox, messages: Vec<Inbound>, answers: &mut Answers) -> std::io::Result<()> {
        self.acknowledger.forget(&messages);
        let mut senders: Vec<(PeerId, Vec<Shown>, Handover)> = Vec::new();
        for (sender, messages) in by_sender(messages) {
            let shown: Vec<Shown> = messages.into_iter().map(Shown::brief).collect();
            let written = shown.iter().map(|shown| shown.became(Outcome::Offered)).collect();
            let handover = Handover::taken(self.acknowledger.clone(), Route::Inbox, written);
            senders.push((sender, shown, handover));
        }
        for (sender, shown, handover) in senders {
            let newest = shown.last().map(|shown| shown.message.id.clone());
            let address = answers.listen(up, inbox, &sender, newest);
            inbox::post(&inbox.path, inbox.agent, &inbox::frame(&shown, address.as_deref(), inbox::Mode::Unsaid)).await?; // the rest is released
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
