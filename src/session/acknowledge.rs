//! Sends acknowledgements to the broker from an ordered queue in memory. They are repeated, across broker restarts, until the
//! broker confirms them. If this process is killed, the broker hands the unacknowledged messages over again, marked as repeats.

use super::{
    link::{AT_ONCE, Link, Registration, mends_itself},
    log,
};
use crate::wire::{Acknowledge, Acknowledged, Acknowledgement, Code, Outcome, Result, Route};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Most acknowledgements in one request; far below what a request may hold.
const MAX_BATCH: usize = 200;
/// The pause before another attempt after a lost connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before another attempt when the broker could not store the acknowledgement (its disk is full).
const LONG_PAUSE: Duration = Duration::from_secs(10);
/// How long a call waits for earlier acknowledgements.
const SETTLING: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Acknowledger {
    queue: watch::Sender<Queue>,
}

/// Numbered acknowledgements. A message that was released and taken again may need another release while the first is still on
/// its way.
#[derive(Default)]
struct Queue {
    next: u64,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    number: u64,
    route: Route,
    of_message: Acknowledgement,
}

impl Acknowledger {
    fn acknowledge(&self, route: Route, acknowledgements: impl IntoIterator<Item = Acknowledgement>) {
        self.queue.send_modify(|queue| {
            for of_message in acknowledgements {
                queue.entries.push(Entry { number: queue.next, route, of_message });
                queue.next += 1;
            }
        });
    }

    #[cfg(test)]
    pub fn queued(&self) -> Vec<Outcome> {
        self.queue.borrow().entries.iter().map(|queued| queued.of_message.outcome).collect()
    }

    /// Waits until the broker has stored what is queued, but not for long. Until then it keeps back later messages.
    pub async fn settle(&self) {
        let mut queue = self.queue.subscribe();
        _ = timeout(SETTLING, queue.wait_for(|queue| queue.entries.is_empty())).await;
    }

    /// Sends queued acknowledgements for as long as this process serves the session.
    pub async fn run(&self, link: &Link) {
        let mut queue = self.queue.subscribe();
        while let Ok(up) = link.served().await {
            match self.acknowledge_next(&up).await {
                Ok(true) => {}
                Ok(false) => _ = queue.wait_for(|queue| !queue.entries.is_empty()).await,
                Err(error) => {
                    log!("acknowledging: {error}");
                    sleep(if mends_itself(&error) { PAUSE } else { LONG_PAUSE }).await;
                }
            }
        }
    }

    /// Sends the queue once, if the broker is reachable.
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
        let mut batch = self.queue.borrow().entries.clone();
        let Some(&Entry { route, .. }) = batch.first() else { return Ok(false) };
        let same = batch.iter().take_while(|queued| queued.route == route).count();
        batch.truncate(same.min(MAX_BATCH));
        let last = batch.last().map(|queued| queued.number);
        let request = Acknowledge { route, messages: batch.into_iter().map(|queued| queued.of_message).collect() };
        match up.post::<Acknowledged>("/v1/acknowledge", &request, AT_ONCE).await {
            Err(error) if mends_itself(&error) || error.code == Code::Internal => return Err(error),
            Err(error) => log!("the broker refused to acknowledge {} messages: {error}", request.messages.len()),
            Ok(_) => {}
        }
        self.queue.send_modify(|queue| queue.entries.retain(|queued| Some(queued.number) > last));
        Ok(true)
    }
}

/// Messages on their way to the model. They are acknowledged once written, and released if this is dropped first.
pub struct Handover {
    pub acknowledger: Arc<Acknowledger>,
    pub route: Route,
    /// The messages, with their outcome once written.
    pub messages: Vec<Acknowledgement>,
    /// The lease under which they were taken for this hand-over, so that they can be released.
    pub lease: Option<String>,
}

impl Handover {
    /// The messages have been written.
    pub fn written(mut self) {
        let messages = std::mem::take(&mut self.messages).into_iter();
        self.acknowledger
            .acknowledge(self.route, messages.map(|message| Acknowledgement { lease: self.lease.clone(), ..message }));
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.lease.is_some() && !self.messages.is_empty() {
            let messages = std::mem::take(&mut self.messages).into_iter();
            let (outcome, lease) = (Outcome::Released, &self.lease);
            let released = messages.map(|message| Acknowledgement { outcome, lease: lease.clone(), ..message });
            self.acknowledger.acknowledge(self.route, released);
        }
    }
}
