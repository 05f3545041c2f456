//! Takes: leases messages to a call that hands them over.

use super::{
    core::{Broker, OnDrop},
    identity::check_token,
    peer::Peer,
    wait::Wait,
};
use crate::{
    db::{self, Durability},
    mailbox::{
        Holder, Message, history,
        lease::{self, Claim, Taker},
    },
    wire::{self, BROKER_SENDER, CLI_SENDER, Code, Error, Inbound, PeerId, Route, Sender, Take, Taken},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::time::Instant;

/// The size of the texts that one take gets by default, in bytes: a full-size message fits.
const DEFAULT_BYTES: u32 = 256 * 1024;

pub(super) struct Taking {
    pub claim: Claim,
    wait: Wait<u64>,
}

impl Taking {
    /// Waits for a change, at most until `at`. Returns false if the time for the whole take is over, or a newer take replaces it.
    pub async fn waits(&mut self, broker: &Broker, at: Option<Instant>) -> wire::Result<bool> {
        if self.wait.is_over() || self.claim.is_outdated.load(Ordering::SeqCst) {
            return Ok(false);
        }
        self.wait.change(broker, at).await.map(|()| true)
    }
}

impl Broker {
    /// Leases the caller's waiting messages to this call.
    pub async fn take(self: &Arc<Self>, id: &PeerId, request: Take) -> wire::Result<Taken> {
        check_token("lease", &request.lease)?;
        let (instance, agent, wake) =
            self.with_peer(id, |peer| (peer.row.instance.clone(), peer.row.agent_key(), peer.wake.subscribe()))?;
        let taker = match request.route {
            Route::CheckMessages => Taker::Check,
            Route::ToolResult => Taker::Result,
            Route::Inbox => Taker::Inbox(agent),
            other => {
                let what = format!("messages cannot be taken for route {other}");
                return Err(Error::new(Code::InvalidRequest, what).help("use tool_result, check_messages or inbox"));
            }
        };
        let claim = Claim {
            peer: id.clone(),
            holder: Holder::Take { instance, lease: request.lease.clone() },
            taker,
            messages: u32::MAX,
            bytes: request.max_bytes.unwrap_or(DEFAULT_BYTES) as usize,
            is_outdated: Arc::default(),
        };
        let _newest = self.outdate_older(id, &request.lease, claim.is_outdated.clone())?;
        let wait = Wait::new(request.wait_seconds, wake);
        let waits = !wait.is_over();
        let mut taking = Taking { claim, wait };
        if let Some((messages, more)) = self.leased_before(&taking.claim).await? {
            return Ok(Taken::of(messages, more));
        }
        if request.route == Route::Inbox {
            return self.take_for_inbox(&request, taking).await;
        }
        let nothing = Taken::of(Vec::new(), 0);
        if self.leaves_to_inbox(id, request.route == Route::ToolResult && !waits) {
            return Ok(nothing);
        }
        let _waits = waits.then(|| self.keep_mail_for_calls(id));
        loop {
            if let Some((messages, more)) = self.lease(taking.claim.clone()).await? {
                return Ok(Taken::of(messages, more));
            }
            if !taking.waits(self, None).await? {
                return Ok(nothing);
            }
        }
    }

    /// The messages that an earlier request got under the same lease, whatever route they would take now: no other gets them.
    async fn leased_before(self: &Arc<Self>, claim: &Claim) -> wire::Result<Option<(Vec<Inbound>, u32)>> {
        let is_repeated =
            self.store.glance(|view| Ok::<_, db::Error>(!lease::leased(view, &claim.peer, &claim.holder, 0, 1)?.is_empty()))?;
        if is_repeated { self.lease(claim.clone()).await } else { Ok(None) }
    }

    /// Whether a call gets no messages because the inbox brings them. That is so for a tool result that does not wait, and for
    /// any call while the client holds written messages. The client shows those with the result of this call, so a call that
    /// waited would keep them from the model.
    fn leaves_to_inbox(&self, id: &PeerId, rides_along: bool) -> bool {
        let leaves = |peer: &mut Peer| {
            peer.route().0 == Route::Inbox && (rides_along || peer.row.confirms_each() && peer.inbox.is_pending())
        };
        self.with_peer(id, leaves).unwrap_or_default()
    }

    /// Makes this take the only one under its lease as long as the returned value lives. A client that asks again has given up
    /// the older request and will not see its answer.
    fn outdate_older(&self, id: &PeerId, lease: &str, is_outdated: Arc<AtomicBool>) -> wire::Result<OnDrop<impl FnMut()>> {
        self.with_peer(id, |peer| {
            if let Some(older) = peer.takes.insert(lease.to_owned(), is_outdated.clone()) {
                older.store(true, Ordering::SeqCst);
                peer.wake();
            }
        })?;
        Ok(OnDrop(move || {
            drop(self.with_peer(id, |peer| peer.takes.retain(|_, other| !Arc::ptr_eq(other, &is_outdated))));
        }))
    }

    /// Keeps this peer's messages for waiting calls, instead of pushing them, as long as the returned value lives.
    fn keep_mail_for_calls(&self, id: &PeerId) -> OnDrop<impl FnMut()> {
        let count = |change: fn(u32, u32) -> u32| {
            let counted = self.with_peer(id, |peer| {
                peer.takers = change(peer.takers, 1);
                peer.wake(); // messages that the last call leaves go to the channel
            });
            drop(counted); // a forgotten peer has no messages
        };
        count(u32::saturating_add);
        OnDrop(move || count(u32::saturating_sub))
    }

    /// Leases the waiting messages that may go to the holder; also returns how many other messages wait. Reads first: most calls
    /// find no messages and do not need the writer.
    pub(super) async fn lease(self: &Arc<Self>, claim: Claim) -> wire::Result<Option<(Vec<Inbound>, u32)>> {
        if !self.store.glance(|view| lease::is_any(view, &claim))? {
            return Ok(None);
        }
        let job = self.commit(Durability::Fsync, move |tx| Ok((lease::lease(tx, &claim)?, history::waiting(tx, &claim.peer)?)));
        let (leased, waiting) = job.await?;
        let more = waiting.saturating_sub(u32::try_from(leased.len()).unwrap_or(u32::MAX));
        Ok((!leased.is_empty()).then(|| (self.inbound(leased), more)))
    }

    /// Stored messages in the form that their recipient sees.
    pub(super) fn inbound(&self, messages: Vec<Message>) -> Vec<Inbound> {
        let roster = self.roster();
        let sender = |id: PeerId| {
            roster.peers.get(&id).map(Peer::as_sender).unwrap_or_else(|| {
                let name = match id.as_str() {
                    CLI_SENDER => "the command line".to_owned(),
                    BROKER_SENDER => "claude-peers".to_owned(),
                    unknown => unknown.to_owned(),
                };
                Sender { id, name, cwd: String::new(), summary: String::new(), container: None }
            })
        };
        let inbound = |Message { receipt, text, handed }: Message| Inbound {
            id: receipt.message_id,
            from: sender(receipt.from),
            text,
            sent_at: receipt.sent_at,
            reply_to: receipt.reply_to,
            repeat: handed > 1,
        };
        messages.into_iter().map(inbound).collect()
    }
}
