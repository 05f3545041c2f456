//! The hooks of a session's client: short ones ask whether mail waits, and one waits for the session as long as it lives.
//!
//! A hook is of the session that its `claude` process runs; the edges have made sure that it descends from that process. One
//! waits at a time: the newest, whose place in the list of routes is derived from its open request, as a stream's is.

use super::{Broker, Hands, deliver::DEFAULT_BYTES, register::check_token, state, stopping};
use crate::{
    store,
    wire::{self, Hook, Hooked, Host, PeerId, Taken, Wait, WaitEnd, Waited, text::printable_line},
};
use std::{sync::Mutex, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long a waiter waits for its session's MCP server, which the client starts at the same time.
const TO_COME: Duration = Duration::from_secs(60);
/// For how long a waiter leaves mail to the results of tools while its session works. Then it wakes the session, which may have
/// been interrupted: no hook tells that. It hands nothing over: the client would keep that until the next result, and show what
/// is put beside that one, which came later, before it.
const TURN_GRACE: Duration = Duration::from_secs(5);
/// The event with which a turn begins.
const TURN_BEGINS: &str = "UserPromptSubmit";
/// The events of hooks that run in a turn.
const IN_TURN: [&str; 2] = [TURN_BEGINS, "PostToolUse"];
/// Longest problem of a hook that the log repeats, in characters.
const LONGEST_PROBLEM: usize = 300;

/// What a look at the peer in memory says to the one who waits.
enum Look {
    /// It is not wanted any more.
    End(WaitEnd),
    /// Nothing waits for it.
    Nothing,
    /// Something waits; the session is in a turn or not.
    Mail { in_turn: bool },
}

impl Broker {
    /// The peer that this `claude` process runs.
    pub fn peer_of(&self, host: Host) -> Option<PeerId> {
        self.state().by_host(host).map(|peer| peer.row.id.clone())
    }

    /// A hook runs, of the session that `host` runs: how many messages it may hand over.
    pub fn hook(&self, host: Option<Host>, request: &Hook) -> Hooked {
        let event: String = printable_line(&request.event).chars().take(LONGEST_PROBLEM).collect();
        if let Some(problem) = &request.problem {
            let problem: String = printable_line(problem).chars().take(LONGEST_PROBLEM).collect();
            tracing::warn!(event, "a hook can do nothing: {problem}");
            return Hooked { waiting: 0 };
        }
        let Some(host) = host else { return Hooked { waiting: 0 } };
        let mut state = self.state();
        let Some(id) = state.by_host(host).map(|peer| peer.row.id.clone()) else { return Hooked { waiting: 0 } };
        let Some(peer) = state.peers.get_mut(&id).filter(|peer| peer.takes_hooks()) else { return Hooked { waiting: 0 } };
        peer.hooks.seen = Some(host);
        peer.hooks.left = None;
        peer.hooks.unattended = request.unattended;
        if request.subagent {
            return Hooked { waiting: 0 };
        }
        peer.hooks.in_turn |= IN_TURN.contains(&event.as_str());
        peer.hooks.woken &= event != TURN_BEGINS;
        Hooked { waiting: peer.waiting }
    }

    /// Waits until messages come for the session that `host` runs, or the wait is not wanted any more.
    ///
    /// # Errors
    /// [`wire::Code::InvalidRequest`] for a lease or session id out of shape; the store's; [`wire::Code::Stopping`].
    pub async fn wait(&self, host: Host, request: Wait, hands: &Hands) -> wire::Result<Waited> {
        let ended = |end| Waited { end, messages: Vec::new(), more: 0 };
        check_token("lease", &request.lease)?;
        if let Some(session) = &request.session_id {
            check_token("sessionId", session)?;
        }
        let Some(mut id) = self.peer_to_come(host).await? else { return Ok(ended(WaitEnd::Over)) };
        if let Some(session) = request.session_id.clone() {
            id = self.turn_to(session, id).await?;
        }
        let Some((waiter, mut wake)) = self.begin_wait(&id, host, request.turn_ended) else {
            return Ok(ended(WaitEnd::Over));
        };
        let max_bytes = request.max_bytes.unwrap_or(DEFAULT_BYTES) as usize;
        let lease = hands.hold(&id, &request.lease);
        let mut noticed = None;
        loop {
            wake.mark_unchanged();
            let mut until = None;
            match waiter.look() {
                Look::End(end) => return Ok(ended(end)),
                Look::Nothing => noticed = None,
                Look::Mail { in_turn } => {
                    let patience = *noticed.get_or_insert_with(Instant::now) + TURN_GRACE;
                    if in_turn && Instant::now() < patience {
                        until = Some(patience);
                    } else if in_turn {
                        if self.wakes_in_turn(&id)? {
                            return Ok(ended(WaitEnd::Wake));
                        }
                        noticed = None;
                    } else if let Some(Taken { messages, more }) = self.lease(&id, &lease, false, max_bytes).await? {
                        return Ok(Waited { end: WaitEnd::Messages, messages, more });
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                () = sleep_until(until) => {}
                changed = wake.changed() => drop(changed),
            }
        }
    }

    /// The peer that `host` runs, which may be about to register; none if it does not.
    async fn peer_to_come(&self, host: Host) -> wire::Result<Option<PeerId>> {
        let mut changes = self.changes.subscribe();
        let until = Instant::now() + TO_COME;
        loop {
            changes.mark_unchanged();
            if let Some(id) = self.peer_of(host) {
                return Ok(Some(id));
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                () = tokio::time::sleep_until(until) => return Ok(None),
                changed = changes.changed() => drop(changed),
            }
        }
    }

    /// Puts a waiter in the place of the one before, unless the session's messages go another way.
    fn begin_wait(&self, id: &PeerId, host: Host, turn_ended: bool) -> Option<(Waiter<'_>, watch::Receiver<u64>)> {
        let mut state = self.state();
        let number = state.next_link();
        let peer = state.peers.get_mut(id).filter(|peer| peer.takes_hooks())?;
        peer.hooks.waiter = Some(number);
        peer.hooks.seen = Some(host);
        if turn_ended {
            // Woken in the middle of the turn that ends now, it begins another one at once.
            peer.hooks.in_turn = std::mem::take(&mut peer.hooks.woken);
        }
        let wake = peer.wake.subscribe();
        peer.wake(); // the one before sees that it is displaced
        drop(state);
        tracing::debug!(peer = %id, "a hook waits");
        Some((Waiter { state: &self.state, id: id.clone(), host, number }, wake))
    }

    /// Whether the session is to be woken although it may be in a turn: if there is something that its hooks may hand over.
    fn wakes_in_turn(&self, id: &PeerId) -> wire::Result<bool> {
        let wakes = self.store.glance(|c| Ok(store::leases::has_fresh(c, id)?))?;
        if wakes && let Some(peer) = self.state().peers.get_mut(id) {
            peer.hooks.woken = true;
        }
        Ok(wakes)
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// A hook that waits. When it is dropped, whatever the reason, the session has no waiter, or another one.
struct Waiter<'a> {
    state: &'a Mutex<state::State>,
    id: PeerId,
    host: Host,
    number: u64,
}

impl Waiter<'_> {
    fn look(&self) -> Look {
        let state = state::lock(self.state);
        match state.peers.get(&self.id) {
            Some(peer) if peer.row.host == Some(self.host) && peer.takes_hooks() => {
                if peer.hooks.waiter != Some(self.number) {
                    Look::End(WaitEnd::Displaced)
                } else if peer.waiting == 0 || peer.row.ended || peer.takers > 0 {
                    Look::Nothing // a call that waits for a message gets it as its result
                } else {
                    Look::Mail { in_turn: peer.hooks.in_turn }
                }
            }
            _ => Look::End(WaitEnd::Over),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if let Some(peer) = state::lock(self.state).peers.get_mut(&self.id)
            && peer.hooks.waiter == Some(self.number)
        {
            peer.hooks.waiter = None;
            peer.wake(); // a stream may be the way now
        }
    }
}
