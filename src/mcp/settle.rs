//! Telling the broker what became of messages: a queue in memory, in order, said until the broker has taken note, across
//! its restarts. What is still in it when the process is killed is handed over again, marked as a repeat.

use super::{
    link::{Link, mends_itself},
    locked, log,
};
use crate::wire::{Inbound, MessageId, Outcome, Result, Route, Settle, Settled, Settlement};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Most settlements in one request; far below what a request may hold.
const MAX_BATCH: usize = 200;

/// The queue of what the broker has to be told.
#[derive(Default)]
pub struct Settler {
    queue: Mutex<Vec<(Route, Settlement)>>,
    filled: Notify,
}

impl Settler {
    /// Puts what became of messages that went by `route` into the queue.
    pub fn settle(&self, route: Route, settlements: impl IntoIterator<Item = Settlement>) {
        locked(&self.queue).extend(settlements.into_iter().map(|settlement| (route, settlement)));
        self.filled.notify_one();
    }

    /// Whether this process has shown the message without the broker knowing yet.
    pub fn is_shown(&self, id: &MessageId) -> bool {
        locked(&self.queue).iter().any(|(_, settled)| settled.id == *id && settled.outcome != Outcome::Released)
    }

    /// Takes back releases of messages that the broker has given anew: they must not undo what becomes of them now.
    pub fn forget_releases(&self, messages: &[Inbound]) {
        let is_anew = |id: &MessageId| messages.iter().any(|message| message.id == *id);
        locked(&self.queue).retain(|(_, settled)| settled.outcome != Outcome::Released || !is_anew(&settled.id));
    }

    /// Empties the queue whenever something is in it, for ever.
    pub async fn run(&self, link: &Link) {
        loop {
            match self.settle_next(link).await {
                Ok(true) => {}
                Ok(false) => self.filled.notified().await,
                Err(error) => {
                    log!("settling: {error}");
                    if link.up().await.is_err() {
                        return; // this process will not be served again
                    }
                }
            }
        }
    }

    /// Empties the queue once, if the broker is there.
    pub async fn flush(&self, link: &Link) {
        while link.current().is_some() {
            match self.settle_next(link).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return log!("settling: {error}"),
            }
        }
    }

    /// Says what stands first in the queue; false if nothing does. What waits meanwhile goes with the next request.
    async fn settle_next(&self, link: &Link) -> Result<bool> {
        let batch: Vec<(Route, Settlement)> = {
            let queue = locked(&self.queue);
            let route = queue.first().map(|(route, _)| *route);
            queue.iter().take_while(|(r, _)| Some(*r) == route).take(MAX_BATCH).cloned().collect()
        };
        let Some((route, _)) = batch.first() else { return Ok(false) };
        let messages = batch.iter().map(|(_, settlement)| settlement.clone()).collect();
        match link.post::<Settled>("/v1/settle", &Settle { route: *route, messages }).await {
            Err(error) if mends_itself(&error) => return Err(error),
            Err(error) => log!("the broker refused to settle {} messages: {error}", batch.len()),
            Ok(_) => {}
        }
        locked(&self.queue).retain(|settled| !batch.contains(settled));
        Ok(true)
    }
}

/// Messages on their way into an answer. Written, they count as handed over; dropped before that, they are released.
pub struct Handover {
    settler: Arc<Settler>,
    route: Route,
    written: Vec<Settlement>,
    dropped: Vec<Settlement>,
}

impl Handover {
    /// A hand-over of messages taken from the broker for it.
    pub fn taken(settler: Arc<Settler>, route: Route, written: Vec<Settlement>) -> Self {
        let released = |settled: &Settlement| Settlement { outcome: Outcome::Released, ..settled.clone() };
        let dropped = written.iter().map(released).collect();
        Self { settler, route, written, dropped }
    }

    /// A hand-over of a message that was only looked up: if nothing comes of it, nothing has happened.
    pub fn read(settler: Arc<Settler>, route: Route, written: Settlement) -> Self {
        Self { settler, route, written: vec![written], dropped: Vec::new() }
    }

    /// The answer has been written.
    pub fn written(mut self) {
        self.dropped.clear();
        self.settler.settle(self.route, std::mem::take(&mut self.written));
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if !self.dropped.is_empty() {
            self.settler.settle(self.route, std::mem::take(&mut self.dropped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settlement(seq: i64, outcome: Outcome) -> Settlement {
        Settlement { id: MessageId { seq, tag: "abc".to_owned() }, outcome }
    }

    fn queued(settler: &Settler) -> Vec<(i64, Outcome)> {
        locked(&settler.queue).iter().map(|(_, settled)| (settled.id.seq, settled.outcome)).collect()
    }

    #[test]
    fn a_written_hand_over_is_settled_and_a_dropped_one_released() {
        let settler = Arc::new(Settler::default());
        let handover = |seq| Handover::taken(settler.clone(), Route::ToolResult, vec![settlement(seq, Outcome::Delivered)]);
        handover(1).written();
        drop(handover(2));
        drop(Handover::read(settler.clone(), Route::CheckMessages, settlement(3, Outcome::Delivered)));
        assert_eq!(queued(&settler), [(1, Outcome::Delivered), (2, Outcome::Released)]);
        assert!(settler.is_shown(&settlement(1, Outcome::Offered).id) && !settler.is_shown(&settlement(2, Outcome::Offered).id));
    }
}
