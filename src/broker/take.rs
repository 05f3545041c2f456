//! Mail goes out: leased to a call that hands it over.

use super::{
    core::{Broker, stopping, unknown_peer},
    identity::check_token,
};
use crate::{
    mailbox::{
        Holder, Message, history,
        lease::{self, Most, Taker},
    },
    wire::{self, BROKER_SENDER, CLI_SENDER, Code, Error, Inbound, PeerId, Route, Sender, Take, Taken},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Longest wait of one take.
const LONGEST_WAIT: u32 = 3_600;
/// Text given by one take that names no bound, in bytes: a full-size message fits.
const DEFAULT_BYTES: u32 = 256 * 1024;

/// A take under way.
pub(super) struct Asking {
    pub id: PeerId,
    pub holder: Holder,
    pub most: Most,
    pub deadline: Instant,
    pub wake: watch::Receiver<u64>,
}

impl Broker {
    /// Leases the caller's waiting messages to it.
    pub async fn take(self: &Arc<Self>, id: &PeerId, request: Take) -> wire::Result<Taken> {
        check_token("lease", &request.lease)?;
        let taker = match request.route {
            Route::CheckMessages => Some(Taker::Check),
            Route::ToolResult => Some(Taker::Result),
            Route::Inbox => None,
            other => {
                let what = format!("messages cannot be taken for route {other}");
                return Err(Error::new(Code::InvalidRequest, what).help("use tool_result, check_messages or inbox"));
            }
        };
        let wait = Duration::from_secs(u64::from(request.wait_seconds.unwrap_or(0).min(LONGEST_WAIT)));
        let bytes = request.max_bytes.unwrap_or(DEFAULT_BYTES) as usize;
        let mut asking = {
            let roster = self.roster();
            let peer = roster.peers.get(id).ok_or_else(|| unknown_peer(id))?;
            Asking {
                id: id.clone(),
                holder: Holder::Take { instance: peer.row.instance.clone(), lease: request.lease.clone() },
                most: Most { messages: u32::MAX, bytes },
                deadline: Instant::now() + wait,
                wake: peer.wake.subscribe(),
            }
        };
        let Some(taker) = taker else { return self.take_for_inbox(&request, asking).await };
        if self.leaves_to_inbox(id, taker == Taker::Result && wait.is_zero()) {
            return Ok(Taken::of(Vec::new(), 0));
        }
        let _waiting = (!wait.is_zero()).then(|| WaitingCall::new(self, id));
        loop {
            asking.wake.mark_unchanged();
            if let Some((messages, more)) = self.lease(id, &asking.holder, taker.clone(), asking.most).await? {
                return Ok(Taken::of(messages, more));
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                _ = tokio::time::sleep_until(asking.deadline) => return Ok(Taken::of(Vec::new(), 0)),
                changed = asking.wake.changed() => drop(changed),
            }
        }
    }

    /// Whether a call is given nothing, because the inbox brings what waits: a result beside which nothing rides, or any call
    /// while the client holds what was written and shows it with this very call's result. A call that waited for that would keep
    /// it from the model.
    fn leaves_to_inbox(&self, id: &PeerId, rides_along: bool) -> bool {
        let roster = self.roster();
        let Some(peer) = roster.peers.get(id).filter(|peer| peer.route().0 == Route::Inbox) else { return false };
        rides_along || peer.row.has_hook() && peer.inbox.is_pending()
    }

    /// Leases what waits and may go to `taker`, with how many more wait; none if nothing does. A look first: most calls find
    /// nothing, and need no writer.
    pub(super) async fn lease(
        self: &Arc<Self>,
        id: &PeerId,
        holder: &Holder,
        taker: Taker,
        most: Most,
    ) -> wire::Result<Option<(Vec<Inbound>, u32)>> {
        if !self.store.glance(|view| lease::is_any(view, id, holder, &taker))? {
            return Ok(None);
        }
        let (id, holder) = (id.clone(), holder.clone());
        let job = self.commit(move |tx| {
            let (leased, effects) = lease::lease(tx, &id, &holder, &taker, most)?;
            let waiting = history::waiting(tx, &id)?;
            Ok(((leased, waiting), effects))
        });
        let (leased, waiting) = job.await?;
        if leased.is_empty() {
            return Ok(None);
        }
        let more = waiting.saturating_sub(u32::try_from(leased.len()).unwrap_or(u32::MAX));
        Ok(Some((self.inbound(leased), more)))
    }

    /// Stored messages as their recipient is shown them.
    pub(super) fn inbound(&self, messages: Vec<Message>) -> Vec<Inbound> {
        let roster = self.roster();
        let sender = |id: PeerId| {
            roster.peers.get(&id).map(super::peer::Peer::as_sender).unwrap_or_else(|| {
                let name = match id.as_str() {
                    CLI_SENDER => "the command line".to_owned(),
                    BROKER_SENDER => "claude-peers".to_owned(),
                    unknown => unknown.to_owned(),
                };
                Sender { id, name, cwd: String::new(), summary: String::new() }
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

/// A take that waits: while it does, mail is kept for it and not pushed.
struct WaitingCall<'a> {
    broker: &'a Broker,
    id: &'a PeerId,
}

impl<'a> WaitingCall<'a> {
    fn new(broker: &'a Broker, id: &'a PeerId) -> Self {
        if let Some(peer) = broker.roster().peers.get_mut(id) {
            peer.takers += 1;
        }
        Self { broker, id }
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        if let Some(peer) = self.broker.roster().peers.get_mut(self.id) {
            peer.takers = peer.takers.saturating_sub(1);
            peer.wake(); // what it left goes to the channel after all
        }
    }
}
