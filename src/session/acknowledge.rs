//! Tells the broker what became of messages: an ordered queue in memory, repeated until the broker has taken note, across its
//! restarts. If this process is killed, the broker hands over again, marked as a repeat, what was still in the queue.

use super::{
    link::{AT_ONCE, Link, Registration, mends_itself},
    locked, log,
};
use crate::wire::{Acknowledge, Acknowledged, Acknowledgement, Code, Inbound, Outcome, Result, Route};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// Most acknowledgements in one request; far below what a request may hold.
const MAX_BATCH: usize = 200;
/// The pause before another attempt after a lost connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before another attempt when the broker could not store the acknowledgement (its disk is full).
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// The queue of acknowledgements.
#[derive(Default)]
pub struct Acknowledger {
    queue: Mutex<Vec<(Route, Acknowledgement)>>,
    filled: Notify,
}

impl Acknowledger {
    /// Queues what became of messages that went by `route`.
    pub fn acknowledge(&self, route: Route, acknowledgements: impl IntoIterator<Item = Acknowledgement>) {
        locked(&self.queue).extend(acknowledgements.into_iter().map(|acknowledgement| (route, acknowledgement)));
        self.filled.notify_one();
    }

    /// Drops queued acknowledgements of messages that the broker has given again: it has heard them already, and hearing them
    /// again would undo what happens to the messages now.
    pub fn forget(&self, given: &[Inbound]) {
        locked(&self.queue).retain(|(_, acknowledged)| given.iter().all(|message| message.id != acknowledged.id));
    }

    /// Sends whatever is queued, for as long as this process is served.
    pub async fn run(&self, link: &Link) {
        while let Ok(up) = link.up().await {
            match self.acknowledge_next(&up).await {
                Ok(true) => {}
                Ok(false) => self.filled.notified().await,
                Err(error) => {
                    log!("acknowledging: {error}");
                    sleep(if mends_itself(&error) { PAUSE } else { LONG_PAUSE }).await;
                }
            }
        }
    }

    /// Sends what is queued once, if the broker is there.
    pub async fn flush(&self, link: &Link) {
        while let Some(up) = link.current() {
            match self.acknowledge_next(&up).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return log!("acknowledging: {error}"),
            }
        }
    }

    /// Sends the first acknowledgements in the queue that share a route; false if the queue is empty.
    async fn acknowledge_next(&self, up: &Registration) -> Result<bool> {
        let batch: Vec<(Route, Acknowledgement)> = {
            let queue = locked(&self.queue);
            let route = queue.first().map(|(route, _)| *route);
            queue.iter().take_while(|(r, _)| Some(*r) == route).take(MAX_BATCH).cloned().collect()
        };
        let Some((route, _)) = batch.first() else { return Ok(false) };
        let messages = batch.iter().map(|(_, acknowledgement)| acknowledgement.clone()).collect();
        match up.post::<Acknowledged>("/v1/acknowledge", &Acknowledge { route: *route, messages }, AT_ONCE).await {
            Err(error) if mends_itself(&error) || error.code == Code::Internal => return Err(error),
            Err(error) => log!("the broker refused to acknowledge {} messages: {error}", batch.len()),
            Ok(_) => {}
        }
        locked(&self.queue).retain(|acknowledged| !batch.contains(acknowledged));
        Ok(true)
    }
}

/// Messages on their way into an answer: acknowledged once it is written, released if this is dropped before.
pub struct Handover {
    acknowledger: Arc<Acknowledger>,
    route: Route,
    messages: Vec<Acknowledgement>,
    /// They are leased for this answer.
    leased: bool,
}

impl Handover {
    /// A hand-over of messages taken from the broker for it, with what becomes of them once they are written.
    pub fn taken(acknowledger: Arc<Acknowledger>, route: Route, messages: Vec<Acknowledgement>) -> Self {
        Self { acknowledger, route, messages, leased: true }
    }

    /// A hand-over of a message that was only looked up: there is nothing to release.
    pub fn read(acknowledger: Arc<Acknowledger>, route: Route, message: Acknowledgement) -> Self {
        Self { acknowledger, route, messages: vec![message], leased: false }
    }

    /// The answer has been written.
    pub fn written(mut self) {
        self.acknowledger.acknowledge(self.route, std::mem::take(&mut self.messages));
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.leased && !self.messages.is_empty() {
            let messages = std::mem::take(&mut self.messages).into_iter();
            let released = messages.map(|message| Acknowledgement { outcome: Outcome::Released, ..message });
            self.acknowledger.acknowledge(self.route, released);
        }
    }
}
