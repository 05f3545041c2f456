//! Mail for the session: taken from the broker into an answer, and acknowledged or released with that answer.
//!
//! A message taken for an answer is kept in a [`Handover`] under the request's id until the transport claims it to write the
//! answer. If the client cancels the request first, the hand-over is dropped, which releases the messages.

use super::{
    acknowledge::{Acknowledger, Handover},
    link::{AT_ONCE, Link, mends_itself},
    locked,
};
use crate::{
    agents::shown::{PART_LENGTH, Shown},
    platform::random,
    wire::{HistoryEntry, Inbound, MessageId, Outcome, Result, Route, Sender, Take, Taken},
};
use rmcp::model::RequestId;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Most text beside another tool's result, in bytes.
const BESIDE_BYTES: u32 = 24 * 1024;
/// Most text in a result that was waited for, in bytes.
const CHECK_BYTES: u32 = PART_LENGTH as u32;
/// Length of a lease.
const LEASE_LENGTH: usize = 24;

/// Messages for an answer.
pub struct Mail {
    /// The messages as they are shown.
    pub messages: Vec<Shown>,
    /// How many more wait.
    pub more: u32,
    /// Acknowledges the messages when the answer is written, else releases them.
    pub handover: Handover,
}

/// The session's mailbox, seen from this process.
pub struct Mailbox {
    link: Arc<Link>,
    acknowledger: Arc<Acknowledger>,
    /// Mail may be waiting. Set when in doubt: asking costs one short request.
    waiting: AtomicBool,
    /// The requests under way, with what their answers will carry.
    answering: Mutex<HashMap<RequestId, Vec<Handover>>>,
}

impl Mailbox {
    /// The mailbox behind `link`.
    pub fn new(link: Arc<Link>, acknowledger: Arc<Acknowledger>) -> Self {
        Self { link, acknowledger, waiting: AtomicBool::new(true), answering: Mutex::default() }
    }

    /// Notes that mail waits, or may wait.
    pub fn mail_waits(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// Begins the answer to a request: from now on it can carry mail.
    pub fn begin(&self, request: &RequestId) {
        locked(&self.answering).insert(request.clone(), Vec::new());
    }

    /// Puts mail into the answer to `request`, or releases it if the request was cancelled meanwhile.
    pub fn attach(&self, request: &RequestId, handover: Handover) {
        if let Some(carried) = locked(&self.answering).get_mut(request) {
            carried.push(handover);
        }
    }

    /// Ends the answer to `request` and gives what it carries: it is about to be written, or it never will be.
    pub fn claim(&self, request: &RequestId) -> Vec<Handover> {
        locked(&self.answering).remove(request).unwrap_or_default()
    }

    /// Releases everything that no answer was written for.
    pub fn close(&self) {
        let unanswered = std::mem::take(&mut *locked(&self.answering));
        drop(unanswered);
    }

    /// Mail to go beside a tool's result; none if none waits or the broker is away.
    pub async fn beside(self: &Arc<Self>) -> Option<Mail> {
        if !self.waiting.swap(false, Ordering::Relaxed) || self.link.current().is_none() {
            return None;
        }
        let lease = random::token(LEASE_LENGTH);
        match self.take(Route::ToolResult, BESIDE_BYTES, AT_ONCE, &lease).await {
            Ok(taken) => {
                let mail = self.mail(Route::ToolResult, taken, Shown::brief);
                (!mail.messages.is_empty()).then_some(mail)
            }
            Err(error) => {
                super::log!("taking mail for a tool's result: {error}");
                self.give_back(Route::ToolResult, lease);
                None
            }
        }
    }

    /// Takes mail for an answer, shown by `show`; waits up to `wait` for it, or until `stop` is done.
    pub async fn receive(
        self: &Arc<Self>,
        route: Route,
        wait: Duration,
        stop: impl Future<Output = ()>,
        show: impl Fn(Inbound) -> Shown,
    ) -> Result<Mail> {
        let lease = random::token(LEASE_LENGTH);
        self.waiting.store(false, Ordering::Relaxed);
        let taken = tokio::select! {
            biased;
            taken = self.take(route, CHECK_BYTES, wait, &lease) => taken,
            () = stop => {
                self.give_back(route, lease);
                return Ok(self.mail(route, Taken::of(Vec::new(), 0), show));
            }
        };
        if taken.is_err() {
            self.give_back(route, lease);
        }
        Ok(self.mail(route, taken?, show))
    }

    /// Releases what the broker may have given in an answer that never arrived here. The same lease gives it again, as soon as
    /// the broker is there.
    fn give_back(self: &Arc<Self>, route: Route, lease: String) {
        self.mail_waits();
        let mail = self.clone();
        tokio::spawn(async move {
            while mail.link.up().await.is_ok() {
                match mail.take(route, 1, AT_ONCE, &lease).await {
                    Err(error) if mends_itself(&error) => {}
                    Err(error) => return super::log!("giving mail back: {error}"),
                    Ok(taken) => return drop(mail.mail(route, taken, Shown::brief)),
                }
            }
        });
    }

    /// One message by its id, from the character `offset` on. Shown to its recipient, it counts as handed over.
    pub async fn read(&self, id: &MessageId, offset: usize) -> Result<(Shown, Option<Handover>)> {
        let HistoryEntry { receipt, from_name, text } = self.link.get(&format!("/v1/messages/{id}"), AT_ONCE).await?;
        let is_ours = self.link.current().is_some_and(|up| up.me.id == receipt.to);
        let from = Sender { id: receipt.from, name: from_name, cwd: String::new(), summary: String::new() };
        let (id, sent_at, reply_to) = (receipt.message_id, receipt.sent_at, receipt.reply_to);
        let shown = Shown::part(Inbound { id, from, text, sent_at, reply_to, repeat: false }, offset);
        let delivered = || Handover::read(self.acknowledger.clone(), Route::CheckMessages, shown.became(Outcome::Delivered));
        let handover = is_ours.then(delivered);
        Ok((shown, handover))
    }

    async fn take(&self, route: Route, max_bytes: u32, wait: Duration, lease: &str) -> Result<Taken> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait_seconds = Some(left.as_secs_f64().ceil() as u32).filter(|seconds| *seconds > 0);
            let lease = lease.to_owned();
            let take = Take { lease, route, max_bytes: Some(max_bytes), wait_seconds, idle: false, inbound: None };
            match self.link.post("/v1/take", &take, left).await {
                Err(error) if mends_itself(&error) && Instant::now() < until => {
                    // The broker went away: wait for its return.
                    if timeout_at(until, self.link.up()).await.is_err() {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    fn mail(&self, route: Route, taken: Taken, show: impl Fn(Inbound) -> Shown) -> Mail {
        if taken.more > 0 {
            self.mail_waits();
        }
        self.acknowledger.forget(&taken.messages);
        let messages: Vec<_> = taken.messages.into_iter().map(show).collect();
        let delivered = messages.iter().map(|shown: &Shown| shown.became(Outcome::Delivered)).collect();
        let handover = Handover::taken(self.acknowledger.clone(), route, delivered);
        Mail { messages, more: taken.more, handover }
    }
}
