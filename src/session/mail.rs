//! Mail for the session: taken from the broker for an answer, then acknowledged or released with that answer.
//!
//! A [`Handover`] keeps the messages taken for an answer, under the request's id, until the transport claims it to write the
//! answer. If the client cancels the request first, the hand-over is dropped and its messages are released.

use super::{
    acknowledge::{Acknowledger, Handover},
    link::{AT_ONCE, Link, mends_itself},
    log,
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
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// Most bytes of mail beside another tool's result.
const BESIDE_BYTES: u32 = 24 * 1024;
/// Most bytes of mail in a result that was waited for.
pub const CHECK_BYTES: u32 = PART_LENGTH as u32;
/// Most calls under way: more than a client needs, at little cost in memory.
const MOST_CALLS: usize = 256;
pub const LEASE_LENGTH: usize = 24;

pub struct Mail {
    pub messages: Vec<Shown>,
    /// How many more messages wait.
    pub more: u32,
    pub handover: Handover,
}

/// The session's mailbox, seen from this process.
pub struct Mailbox {
    link: Arc<Link>,
    acknowledger: Arc<Acknowledger>,
    /// Mail may be waiting. Set when in doubt, because asking costs only a short request.
    waiting: AtomicBool,
    answering: Mutex<HashMap<RequestId, Call>>,
}

struct Call {
    began: Instant,
    /// The mail for its answer.
    carried: Vec<Handover>,
    /// Its handler has not ended.
    runs: bool,
    is_cancelled: bool,
}

/// A call whose handler runs. As long as it does, no other call has its id: the mail of one would count as shown with the answer to the
/// other.
pub struct Running<'a> {
    mailbox: &'a Mailbox,
    request: &'a RequestId,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut answering = self.mailbox.answering();
        if let Some(call) = answering.get_mut(self.request) {
            call.runs = false;
            if call.is_cancelled {
                answering.remove(self.request); // nobody will claim it
            }
        }
    }
}

impl Mailbox {
    pub fn new(link: Arc<Link>, acknowledger: Arc<Acknowledger>) -> Self {
        Self { link, acknowledger, waiting: AtomicBool::new(true), answering: Mutex::default() }
    }

    /// Notes that mail waits or may wait.
    pub fn mail_waits(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    fn answering(&self) -> MutexGuard<'_, HashMap<RequestId, Call>> {
        self.answering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call with this id is under way, and if so, whether the client has cancelled it.
    pub fn under_way(&self, request: &RequestId) -> Option<bool> {
        self.answering().get(request).map(|call| call.is_cancelled)
    }

    /// Opens the answer to a call, which can carry mail from now on, unless too many calls are under way.
    pub fn open(&self, request: &RequestId) {
        let mut answering = self.answering();
        if answering.values().filter(|call| !call.is_cancelled).count() < MOST_CALLS {
            let call = Call { began: Instant::now(), carried: Vec::new(), runs: true, is_cancelled: false };
            answering.insert(request.clone(), call);
        }
    }

    /// Begins to handle a call. None if too many calls are under way.
    pub fn begin<'a>(&'a self, request: &'a RequestId) -> Option<Running<'a>> {
        let is_open = self.answering().contains_key(request);
        is_open.then(|| Running { mailbox: self, request })
    }

    /// Adds mail to the answer to `request`, or releases the mail if the request was cancelled meanwhile.
    pub fn attach(&self, request: &RequestId, handover: Handover) {
        if let Some(call) = self.answering().get_mut(request).filter(|call| !call.is_cancelled) {
            call.carried.push(handover);
        }
    }

    /// Ends the answer to `request`, which is about to be written, and returns its mail. If it carries mail and the client may have
    /// given the call up, its mail is released and `None` is returned: this answer must not be written.
    pub fn claim(&self, request: &RequestId) -> Option<Vec<Handover>> {
        let Some(Call { began, carried, .. }) = self.answering().remove(request) else { return Some(Vec::new()) };
        let is_late = !carried.is_empty() && self.link.client().may_have_given_up(began.elapsed());
        (!is_late).then_some(carried)
    }

    /// Releases the mail for the answer to `request`, which will not be written.
    pub fn cancel(&self, request: &RequestId) {
        let mut answering = self.answering();
        let released = match answering.get_mut(request) {
            Some(call) if call.runs => {
                call.is_cancelled = true;
                std::mem::take(&mut call.carried)
            }
            _ => answering.remove(request).map(|call| call.carried).unwrap_or_default(),
        };
        drop(answering);
        drop(released);
    }

    /// Releases all mail whose answer was not written.
    pub fn close(&self) {
        let unanswered = std::mem::take(&mut *self.answering());
        drop(unanswered);
    }

    /// Mail to add to a tool's result; none if no mail waits or the broker is away.
    pub async fn beside(self: &Arc<Self>) -> Option<Mail> {
        if !self.waiting.load(Ordering::Relaxed) || self.link.current().is_none() {
            return None;
        }
        match self.receive((Route::ToolResult, BESIDE_BYTES), AT_ONCE, std::future::pending(), Shown::brief).await {
            Ok(mail) => Some(mail).filter(|mail| !mail.messages.is_empty()),
            Err(error) => {
                log!("taking mail for a tool's result: {error}");
                None
            }
        }
    }

    /// Takes mail for an answer, up to a limit in bytes as rendered by `show`. Waits up to `wait` for mail, or until `stop` is
    /// cancelled.
    pub async fn receive(
        self: &Arc<Self>,
        (route, most): (Route, u32),
        wait: Duration,
        stop: impl Future<Output = ()>,
        show: impl Fn(Inbound) -> Shown,
    ) -> Result<Mail> {
        let lease = random::token(LEASE_LENGTH);
        self.waiting.store(false, Ordering::Relaxed);
        let taken = tokio::select! {
            biased;
            taken = async {
                self.acknowledger.settle().await;
                self.take(route, most, wait, &lease).await
            } => Some(taken),
            () = stop => None,
        };
        if !matches!(taken, Some(Ok(_))) {
            self.give_back(route, lease.clone());
        }
        Ok(self.mail((route, lease), taken.unwrap_or_else(|| Ok(Taken::of(Vec::new(), 0)))?, show))
    }

    /// Releases messages that the broker may have leased in an answer that never arrived here. Once the broker is back, the same
    /// lease returns those messages.
    fn give_back(self: &Arc<Self>, route: Route, lease: String) {
        self.mail_waits();
        let mail = self.clone();
        tokio::spawn(async move {
            while mail.link.up().await.is_ok() {
                match mail.take(route, 1, AT_ONCE, &lease).await {
                    Err(error) if mends_itself(&error) => {}
                    Err(error) => return log!("giving mail back: {error}"),
                    Ok(taken) => return drop(mail.mail((route, lease), taken, Shown::brief)),
                }
            }
        });
    }

    /// One message by its id, from the character `offset` on. If the recipient asks for it, it counts as handed over.
    pub async fn read(&self, id: &MessageId, offset: usize) -> Result<(Shown, Option<Handover>)> {
        let HistoryEntry { receipt, from_name, text } = self.link.get(&format!("/v1/messages/{id}"), AT_ONCE).await?;
        let is_ours = self.link.current().is_some_and(|up| up.me.id == receipt.to);
        let from = Sender { id: receipt.from, name: from_name, cwd: String::new(), summary: String::new(), container: None };
        let (id, sent_at, reply_to) = (receipt.message_id, receipt.sent_at, receipt.reply_to);
        let shown = Shown::part(Inbound { id, from, text, sent_at, reply_to, repeat: false }, offset);
        let (acknowledger, messages) = (self.acknowledger.clone(), vec![shown.became(Outcome::Delivered)]);
        let handover = Handover { acknowledger, route: Route::CheckMessages, messages, lease: None };
        Ok((shown, is_ours.then_some(handover)))
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

    fn mail(&self, (route, lease): (Route, String), taken: Taken, show: impl Fn(Inbound) -> Shown) -> Mail {
        if taken.more > 0 {
            self.mail_waits();
        }
        let shown: Vec<Shown> = taken.messages.into_iter().map(show).collect();
        let messages = shown.iter().map(|shown| shown.became(Outcome::Delivered)).collect();
        let handover = Handover { acknowledger: self.acknowledger.clone(), route, messages, lease: Some(lease) };
        Mail { messages: shown, more: taken.more, handover }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        session::link::Opener,
        session::{stdio::Writer, transport::ClientTransport},
        wire::Acknowledgement,
    };
    use rmcp::{
        model::{CallToolResult, JsonRpcMessage, ServerResult},
        transport::Transport,
    };
    use tokio::io::{AsyncReadExt, duplex, empty};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn mail_of_a_call_given_up_waits_again() {
        let since = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("the machine has run that long");
        for (client, seconds, is_shown) in [
            ("@cline/core", 58, true),
            ("@cline/core", 60, false),
            ("some-new-client", 60, false),
            ("codex-mcp-client", 60, true),
            ("opencode", 60, true),
            ("claude-code", 3_000, true),
        ] {
            let link = Arc::new(Link::default());
            link.opener.set(Opener::new(client, String::new())).expect("not set yet");
            let (mail, request) = (Arc::new(Mailbox::new(link.clone(), Arc::default())), RequestId::Number(1));
            mail.answering()
                .insert(request.clone(), Call { began: since(seconds), carried: Vec::new(), runs: false, is_cancelled: false });
            let message = Acknowledgement { id: "m1-abcdef".parse().expect("an id"), outcome: Outcome::Delivered, lease: None };
            let (acknowledger, lease) = (mail.acknowledger.clone(), Some("lease".to_owned()));
            mail.attach(&request, Handover { acknowledger, route: Route::ToolResult, messages: vec![message], lease });

            let (mut read, out) = duplex(10_000);
            let end = CancellationToken::new();
            let mut transport = ClientTransport::new(Box::new(empty()), Writer::new(out), mail.clone(), link, end);
            let result = ServerResult::CallToolResult(CallToolResult::success(Vec::new()));
            transport.send(JsonRpcMessage::response(result, request)).await.expect("it is written");
            drop(transport);
            let mut line = String::new();
            read.read_to_string(&mut line).await.expect("a line");
            let (key, outcome) = if is_shown { ("result", Outcome::Delivered) } else { ("error", Outcome::Released) };
            assert!(line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":1,"{key}":"#)), "{client} after {seconds} s: {line}");
            assert_eq!(mail.acknowledger.queued(), [outcome], "{client} after {seconds} s");
        }
    }
}
