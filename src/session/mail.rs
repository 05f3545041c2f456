//! Mail for the session: taking it from the broker into an answer, and knowing what became of that answer.
//!
//! A message taken for an answer is held in a [`Handover`] under the request's id until the transport claims it to write
//! the answer. If the client cancels the request first, the answer is never written and the hand-over is dropped, which
//! releases the messages.

use super::{
    acknowledge::{Acknowledger, Handover},
    link::{Link, mends_itself},
    locked,
};
use crate::{
    agents::shown::{PART_LENGTH, Shown},
    platform::random,
    wire::{HistoryEntry, Inbound, MessageId, Result, Route, Take, Taken},
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

/// Most text that goes beside another tool's result.
const BESIDE_BYTES: u32 = 24 * 1024;
/// Most text that one call of `check_messages` gives.
const CHECK_BYTES: u32 = PART_LENGTH as u32;
/// Length of the random name of a hand-over.
const LEASE_LENGTH: usize = 24;

/// Messages for an answer.
pub struct Mail {
    /// The messages as they are shown.
    pub messages: Vec<Shown>,
    /// How many more wait.
    pub more: u32,
    /// What becomes of them when the answer is written, and when it is not.
    pub handover: Handover,
}

/// The session's mailbox, seen from this process.
pub struct Mailbox {
    link: Arc<Link>,
    acknowledger: Arc<Acknowledger>,
    /// Something may be waiting. Set when in doubt; asking then costs one short request.
    waiting: AtomicBool,
    /// The requests being worked on, with what their answers will carry.
    answering: Mutex<HashMap<RequestId, Vec<Handover>>>,
}

impl Mailbox {
    /// The mailbox behind `link`.
    pub fn new(link: Arc<Link>, acknowledger: Arc<Acknowledger>) -> Self {
        Self { link, acknowledger, waiting: AtomicBool::new(true), answering: Mutex::default() }
    }

    /// Notes that something waits, or may wait.
    pub fn mail_waits(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// Begins the answer to a request: from now on it can carry mail.
    pub fn begin(&self, request: &RequestId) {
        locked(&self.answering).insert(request.clone(), Vec::new());
    }

    /// Puts mail into the answer to `request`; released at once if the request was cancelled meanwhile.
    pub fn attach(&self, request: &RequestId, handover: Handover) {
        if let Some(carried) = locked(&self.answering).get_mut(request) {
            carried.push(handover);
        }
    }

    /// Gives up what the answer to `request` carries, because it is about to be written, or because it never will be.
    pub fn claim(&self, request: &RequestId) -> Vec<Handover> {
        locked(&self.answering).remove(request).unwrap_or_default()
    }

    /// Releases everything that no answer was written for.
    pub fn close(&self) {
        let unanswered = std::mem::take(&mut *locked(&self.answering));
        drop(unanswered);
    }

    /// What waits, to go beside a tool's result; none if nothing does or the broker is not there right now.
    pub async fn beside(self: &Arc<Self>) -> Option<Mail> {
        if !self.waiting.swap(false, Ordering::Relaxed) || self.link.current().is_none() {
            return None;
        }
        let lease = random::token(LEASE_LENGTH);
        match self.take(Route::ToolResult, BESIDE_BYTES, Duration::ZERO, &lease).await {
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

    /// What waits, for `check_messages`; waits up to `wait` for it, or until `stop` is done.
    pub async fn check(self: &Arc<Self>, wait: Duration, stop: impl Future<Output = ()>) -> Result<Mail> {
        self.receive(Route::CheckMessages, wait, stop, |message| Shown::part(message, 0)).await
    }

    /// Waits for the answer to `question`: until any message comes, since what comes may be a question that the answer depends
    /// on; until the time is up, or `stop` is done. The answer is shown as far as one result holds it.
    pub async fn answer(self: &Arc<Self>, question: &MessageId, wait: Duration, stop: impl Future<Output = ()>) -> Result<Mail> {
        let show = |message: Inbound| match message.reply_to.as_ref() == Some(question) {
            true => Shown::part(message, 0),
            false => Shown::brief(message),
        };
        self.receive(Route::ToolResult, wait, stop, show).await
    }

    async fn receive(
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

    /// The broker may have given messages in an answer that never arrived here: the same lease gives them again, and they
    /// are released, as soon as the broker is there.
    fn give_back(self: &Arc<Self>, route: Route, lease: String) {
        self.mail_waits();
        let mail = self.clone();
        tokio::spawn(async move {
            while mail.link.up().await.is_ok() {
                match mail.take(route, 1, Duration::ZERO, &lease).await {
                    Err(error) if mends_itself(&error) => {}
                    Err(error) => return super::log!("giving mail back: {error}"),
                    Ok(taken) => return drop(mail.mail(route, taken, Shown::brief)),
                }
            }
        });
    }

    /// One message by its id, from the character `offset` on.
    pub async fn read(&self, id: &MessageId, offset: usize) -> Result<(Shown, Option<Handover>)> {
        let entry: HistoryEntry = self.link.get(&format!("/v1/messages/{id}")).await?;
        let receipt = entry.receipt;
        let is_ours = self.link.current().is_some_and(|up| up.me.id == receipt.to);
        let from = crate::wire::Sender { id: receipt.from, name: entry.from_name, cwd: String::new(), summary: String::new() };
        let (id, sent_at, reply_to) = (receipt.message_id, receipt.sent_at, receipt.reply_to);
        let message = Inbound { id, from, text: entry.text, sent_at, reply_to, repeat: false };
        let shown = Shown::part(message, offset);
        let handover = is_ours.then(|| Handover::read(self.acknowledger.clone(), Route::CheckMessages, shown.acknowledgement()));
        Ok((shown, handover))
    }

    async fn take(&self, route: Route, max_bytes: u32, wait: Duration, lease: &str) -> Result<Taken> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait_seconds = Some(left.as_secs_f64().ceil() as u32).filter(|seconds| *seconds > 0);
            let take =
                Take { lease: lease.to_owned(), route, max_bytes: Some(max_bytes), wait_seconds, idle: false, inbound: None };
            match self.link.post_waiting("/v1/take", &take, left).await {
                Err(error) if mends_itself(&error) && Instant::now() < until => {
                    // The broker went away while we wait: so do we, for its return.
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
        let handover = Handover::taken(self.acknowledger.clone(), route, messages.iter().map(Shown::acknowledgement).collect());
        Mail { messages, more: taken.more, handover }
    }
}
