//! Mail goes out: taken under a lease, handed over, acknowledged.

use super::{Broker, MessageChange, roster, stopping};
use crate::{
    mailbox::{
        leases::{self, Taker},
        messages::Message,
        outcomes,
    },
    platform::clock,
    wire::{
        self, Acknowledge, Acknowledged, Acknowledgement, BROKER_SENDER, CLI_SENDER, Code, Error, Inbound, MessageState, Outcome,
        PeerId, Receipt, Route, Sender, Take, Taken,
    },
};
use std::{sync::Mutex, time::Duration};
use tokio::time::Instant;

/// Longest wait of one take.
const LONGEST_WAIT: u32 = 3_600;
/// Text given by one take that names no bound, in bytes: a full-size message fits.
pub(super) const DEFAULT_BYTES: u32 = 256 * 1024;
/// Most messages acknowledged at once: more than a mailbox holds by default.
const MOST_SETTLED: usize = 10_000;

impl Broker {
    /// Leases the caller's waiting messages to it.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] for a route or lease out of shape; the store's.
    pub async fn take(&self, id: &PeerId, request: Take) -> wire::Result<Taken> {
        super::register::check_token("lease", &request.lease)?;
        let taker = match request.route {
            Route::CheckMessages => Some(Taker::Check),
            Route::ToolResult => Some(Taker::Result),
            Route::Inbox => None,
            other => {
                let what = format!("messages cannot be taken for route {other}");
                return Err(Error::new(Code::InvalidRequest, what).help("use tool_result, check_messages or inbox"));
            }
        };
        let max_bytes = request.max_bytes.unwrap_or(DEFAULT_BYTES) as usize;
        let wait = Duration::from_secs(u64::from(request.wait_seconds.unwrap_or(0).min(LONGEST_WAIT)));
        let deadline = Instant::now() + wait;
        let (lease, mut wake) = {
            let state = self.state();
            let peer = state.peers.get(id).ok_or_else(|| self.unknown_peer(id))?;
            (roster::take_lease(&peer.row.instance, &request.lease), peer.wake.subscribe())
        };
        let Some(taker) = taker else { return self.take_for_inbox(id, &request, &lease, deadline).await };
        if self.leaves_to_inbox(id, taker == Taker::Result && wait.is_zero()) {
            return Ok(Taken::of(Vec::new(), 0));
        }
        let _waiting = (!wait.is_zero()).then(|| WaitingCall::new(self, id));
        loop {
            wake.mark_unchanged();
            if let Some((messages, more)) = self.lease(id, &lease, taker.clone(), max_bytes).await? {
                return Ok(Taken::of(messages, more));
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                _ = tokio::time::sleep_until(deadline) => return Ok(Taken::of(Vec::new(), 0)),
                changed = wake.changed() => drop(changed),
            }
        }
    }

    /// Whether a call is given nothing, because the inbox brings what waits: a result beside which nothing rides, or any call
    /// while the client holds what was written and shows it with this very call's result. A call that waited for that would keep
    /// it from the model.
    fn leaves_to_inbox(&self, id: &PeerId, rides_along: bool) -> bool {
        let state = self.state();
        let by_inbox = |peer: &&roster::Peer| peer.route().0 == Route::Inbox;
        state.peers.get(id).filter(by_inbox).is_some_and(|peer| rides_along || peer.has_hook() && peer.door.is_pending())
    }

    /// Puts what waits and may go to `taker` under `lease`, with how many more wait; none if nothing does.
    pub(super) async fn lease(
        &self,
        id: &PeerId,
        lease: &str,
        taker: Taker,
        max_bytes: usize,
    ) -> wire::Result<Option<(Vec<Inbound>, u32)>> {
        let waiting = self.state().peers.get(id).map_or(0, |peer| peer.waiting);
        if waiting == 0 {
            return Ok(None);
        }
        let (id, lease) = (id.clone(), lease.to_owned());
        let taken = self.store.write(move |c| Ok(leases::take(c, &id, &lease, &taker, max_bytes)?)).await?;
        if taken.is_empty() {
            return Ok(None);
        }
        let more = waiting.saturating_sub(u32::try_from(taken.len()).unwrap_or(u32::MAX));
        Ok(Some((self.inbound(taken), more)))
    }

    /// Takes note of what became of messages.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] for too many at once; the store's. A message that is not the caller's changes nothing.
    pub async fn acknowledge(&self, id: &PeerId, request: Acknowledge) -> wire::Result<Acknowledged> {
        if request.messages.len() > MOST_SETTLED {
            return Err(Error::new(Code::InvalidRequest, format!("more than {MOST_SETTLED} messages in one acknowledgement")));
        }
        let now = clock::now();
        let (agent, trusted) = {
            let state = self.state();
            let peer = state.peers.get(id).ok_or_else(|| self.unknown_peer(id))?;
            // Where the hook runs, each message is proved by it.
            (peer.agent_key(), peer.has_proved() && !(request.route == Route::Inbox && peer.has_hook()))
        };
        let (peer, route) = (id.clone(), request.route);
        let job = move |c: &rusqlite::Connection| {
            let through = (route == Route::Channel).then_some(agent.as_str());
            let (mut changes, mut waiting, mut waits_again) = (Vec::new(), 0_i64, false);
            for acknowledgement in request.messages {
                let change = match acknowledgement.outcome {
                    Outcome::Offered => outcomes::offered(c, &peer, &acknowledgement.id, route, &agent, trusted, now)?,
                    Outcome::Announced => outcomes::announced(c, &peer, &acknowledgement.id, route, through, now)?,
                    Outcome::Delivered => outcomes::delivered(c, &peer, &acknowledgement.id, route, now)?,
                    Outcome::Released => outcomes::released(c, &peer, &acknowledgement.id, route)?,
                };
                let Some(sender) = change.sender else { continue };
                waiting += change.waiting;
                waits_again |= acknowledgement.outcome != Outcome::Delivered && change.waiting == 0;
                changes.push((acknowledgement, sender));
            }
            Ok((changes, waiting, waits_again))
        };
        let (changes, waiting, waits_again) = self.store.write(job).await?;
        let changed = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let mut state = self.state();
        if let Some(peer) = state.peers.get_mut(id) {
            peer.waiting = peer.waiting.saturating_add_signed(i32::try_from(waiting).unwrap_or_default());
            // What waited behind these messages may go now: through the stream, or with the next tool result.
            peer.hint |= waits_again || (route != Route::Channel && peer.waiting > 0);
            if route == Route::Inbox {
                let written = changes.iter().filter(|(acknowledged, _)| acknowledged.outcome != Outcome::Released);
                peer.door.wrote(written.map(|(acknowledged, _)| acknowledged.id.clone()));
            }
            peer.wake();
        }
        drop(state);
        let told = |(acknowledgement, sender): (Acknowledgement, String)| {
            let state = match acknowledgement.outcome {
                Outcome::Offered | Outcome::Announced => MessageState::Offered,
                Outcome::Delivered => MessageState::Delivered,
                Outcome::Released => return None,
            };
            let from = PeerId::lenient(&sender);
            Some(MessageChange { id: acknowledgement.id, from, to: id.clone(), state, route: Some(route) })
        };
        self.changes.messages(changes.into_iter().filter_map(told));
        tracing::debug!(peer = %id, %route, changed, "acknowledged");
        Ok(Acknowledged { changed })
    }

    /// Stored messages as their recipient is shown them.
    pub(super) fn inbound(&self, messages: Vec<Message>) -> Vec<Inbound> {
        let state = self.state();
        let sender = |id: &str| {
            let id = PeerId::lenient(id);
            state.peers.get(&id).map(roster::Peer::as_sender).unwrap_or_else(|| {
                let name = match id.as_str() {
                    CLI_SENDER => "the command line".to_owned(),
                    BROKER_SENDER => "claude-peers".to_owned(),
                    unknown => unknown.to_owned(),
                };
                Sender { id, name, cwd: String::new(), summary: String::new() }
            })
        };
        let inbound = |message: Message| Inbound {
            from: sender(&message.from),
            repeat: message.handed > 1,
            id: message.id,
            text: message.text,
            sent_at: message.sent_at,
            reply_to: message.reply_to,
        };
        messages.into_iter().map(inbound).collect()
    }
}

/// A take that waits: while it does, mail is kept for it and not pushed.
struct WaitingCall<'a> {
    state: &'a Mutex<roster::Roster>,
    id: PeerId,
}

impl<'a> WaitingCall<'a> {
    fn new(broker: &'a Broker, id: &PeerId) -> Self {
        if let Some(peer) = broker.state().peers.get_mut(id) {
            peer.takers += 1;
        }
        Self { state: &broker.state, id: id.clone() }
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        if let Some(peer) = roster::lock(self.state).peers.get_mut(&self.id) {
            peer.takers = peer.takers.saturating_sub(1);
            peer.wake(); // what it left goes to the channel after all
        }
    }
}

/// What is known of a stored message.
pub(super) fn receipt(message: &Message, to_name: &str) -> Receipt {
    Receipt {
        message_id: message.id.clone(),
        from: PeerId::lenient(&message.from),
        to: PeerId::lenient(&message.to),
        to_name: to_name.to_owned(),
        state: message.state,
        route: message.route,
        sent_at: message.sent_at,
        held: message.held.clone(),
        offered_at: message.offered_at,
        delivered_at: message.delivered_at,
        expired_at: message.expired_at,
        expires_at: message.expires_at,
        reply_to: message.reply_to.clone(),
        warning: None,
    }
}
