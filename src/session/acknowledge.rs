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

/// A message may be queued twice: it was released and taken again, and needs another release while the first is still on its way.
#[derive(Default)]
pub struct Acknowledger {
    queue: watch::Sender<Vec<(Route, Acknowledgement)>>,
}

impl Acknowledger {
    fn acknowledge(&self, route: Route, acknowledgements: impl Iterator<Item = Acknowledgement>) {
        self.queue.send_modify(|queue| queue.extend(acknowledgements.map(|of_message| (route, of_message))));
    }

    #[cfg(test)]
    pub fn queued(&self) -> Vec<Outcome> {
        self.queue.borrow().iter().map(|(_, of_message)| of_message.outcome).collect()
    }

    /// Waits until the broker has stored what is queued, but not for long. Until then it keeps back later messages.
    pub async fn settle(&self) {
        let mut queue = self.queue.subscribe();
        _ = timeout(SETTLING, queue.wait_for(Vec::is_empty)).await;
    }

    /// Sends queued acknowledgements for as long as this process serves the session.
    pub async fn run(&self, link: &Link) {
        let mut queue = self.queue.subscribe();
        while let Ok(up) = link.served().await {
            match self.acknowledge_next(&up).await {
                Ok(true) => {}
                Ok(false) => _ = queue.wait_for(|queue| !queue.is_empty()).await,
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

    /// Sends the first acknowledgements in the queue that share a route; false if the queue is empty. One call at a time.
    async fn acknowledge_next(&self, up: &Registration) -> Result<bool> {
        let queue = self.queue.borrow().clone();
        let Some(&(route, _)) = queue.first() else { return Ok(false) };
        let same = queue.into_iter().take_while(|(other, _)| *other == route).take(MAX_BATCH);
        let request = Acknowledge { route, messages: same.map(|(_, of_message)| of_message).collect() };
        match up.post::<Acknowledged>("/v1/acknowledge", &request, AT_ONCE).await {
            Err(error) if mends_itself(&error) || error.code == Code::Internal => return Err(error),
            Err(error) => log!("the broker refused to acknowledge {} messages: {error}", request.messages.len()),
            Ok(_) => {}
        }
        self.queue.send_modify(|queue| drop(queue.drain(..request.messages.len())));
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
