//! Telling the broker what became of messages: a queue in memory, in order, said until the broker has taken note, across
//! its restarts. What is still in it when the process is killed is handed over again, marked as a repeat.

use super::{
    link::{Link, Up, mends_itself},
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
/// The pause before an acknowledgement is said again after a lost connection.
const PAUSE: Duration = Duration::from_millis(100);
/// The pause before it is said again to a broker that could not store it (its disk is full).
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// The queue of what the broker has to be told.
#[derive(Default)]
pub struct Acknowledger {
    queue: Mutex<Vec<(Route, Acknowledgement)>>,
    filled: Notify,
}

impl Acknowledger {
    /// Puts what became of messages that went by `route` into the queue.
    pub fn acknowledge(&self, route: Route, acknowledgements: impl IntoIterator<Item = Acknowledgement>) {
        locked(&self.queue).extend(acknowledgements.into_iter().map(|acknowledgement| (route, acknowledgement)));
        self.filled.notify_one();
    }

    /// Takes back what is still to be said of messages that the broker has given anew: it has heard that already, and hearing
    /// it again would undo what becomes of them now.
    pub fn forget(&self, given: &[Inbound]) {
        locked(&self.queue).retain(|(_, acknowledged)| given.iter().all(|message| message.id != acknowledged.id));
    }

    /// Empties the queue whenever something is in it, until this process is not served any more.
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

    /// Empties the queue once, if the broker is there.
    pub async fn flush(&self, link: &Link) {
        while let Some(up) = link.current() {
            match self.acknowledge_next(&up).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return log!("acknowledging: {error}"),
            }
        }
    }

    /// Says what stands first in the queue; false if nothing does. What waits meanwhile goes with the next request.
    async fn acknowledge_next(&self, up: &Up) -> Result<bool> {
        let batch: Vec<(Route, Acknowledgement)> = {
            let queue = locked(&self.queue);
            let route = queue.first().map(|(route, _)| *route);
            queue.iter().take_while(|(r, _)| Some(*r) == route).take(MAX_BATCH).cloned().collect()
        };
        let Some((route, _)) = batch.first() else { return Ok(false) };
        let messages = batch.iter().map(|(_, acknowledgement)| acknowledgement.clone()).collect();
        match up.post::<Acknowledged>("/v1/acknowledge", &Acknowledge { route: *route, messages }).await {
            Err(error) if mends_itself(&error) || error.code == Code::Internal => return Err(error),
            Err(error) => log!("the broker refused to acknowledge {} messages: {error}", batch.len()),
            Ok(_) => {}
        }
        locked(&self.queue).retain(|acknowledged| !batch.contains(acknowledged));
        Ok(true)
    }
}

/// Messages on their way into an answer. Written, they count as handed over; dropped before that, they are released.
pub struct Handover {
    acknowledger: Arc<Acknowledger>,
    route: Route,
    written: Vec<Acknowledgement>,
    dropped: Vec<Acknowledgement>,
}

impl Handover {
    /// A hand-over of messages taken from the broker for it.
    pub fn taken(acknowledger: Arc<Acknowledger>, route: Route, written: Vec<Acknowledgement>) -> Self {
        let released = |acknowledged: &Acknowledgement| Acknowledgement { outcome: Outcome::Released, ..acknowledged.clone() };
        let dropped = written.iter().map(released).collect();
        Self { acknowledger, route, written, dropped }
    }

    /// A hand-over of a message that was only looked up: if nothing comes of it, nothing has happened.
    pub fn read(acknowledger: Arc<Acknowledger>, route: Route, written: Acknowledgement) -> Self {
        Self { acknowledger, route, written: vec![written], dropped: Vec::new() }
    }

    /// The answer has been written.
    pub fn written(mut self) {
        self.dropped.clear();
        self.acknowledger.acknowledge(self.route, std::mem::take(&mut self.written));
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.dropped.is_empty() {
            self.acknowledger.acknowledge(self.route, std::mem::take(&mut self.dropped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MessageId;

    fn acknowledgement(seq: i64, outcome: Outcome) -> Acknowledgement {
        Acknowledgement { id: MessageId::new(seq, "abc").unwrap(), outcome }
    }

    fn queued(acknowledger: &Acknowledger) -> Vec<(i64, Outcome)> {
        locked(&acknowledger.queue).iter().map(|(_, acknowledged)| (acknowledged.id.seq(), acknowledged.outcome)).collect()
    }

    #[test]
    fn a_written_hand_over_is_acknowledged_and_a_dropped_one_released() {
        let acknowledger = Arc::new(Acknowledger::default());
        let handover =
            |seq| Handover::taken(acknowledger.clone(), Route::ToolResult, vec![acknowledgement(seq, Outcome::Delivered)]);
        handover(1).written();
        drop(handover(2));
        drop(Handover::read(acknowledger.clone(), Route::CheckMessages, acknowledgement(3, Outcome::Delivered)));
        assert_eq!(queued(&acknowledger), [(1, Outcome::Delivered), (2, Outcome::Released)]);
    }
}
