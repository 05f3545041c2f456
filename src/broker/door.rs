//! The inbox of a session's client, as the broker sees it: when the next frame may be written, and whether the last was let in.
//!
//! A frame is what is written at once. The next one is written when the last was let in, so that no limit of the client's (on
//! rate, repeats, length of its queue) ever eats one. Where the client's prompt hook runs, it says so for each message; what it
//! does not let in although the session idles is lost there and is handed over again, marked as a repeat. After
//! [`MOST_MISSES`] such frames in a row the inbox is given up for that process. Without the hook nothing says so: frames are then
//! written at growing distances, and a reply that names a message proves the inbox, as it does a channel.
//!
//! What is known lies under the broker's one lock; the store knows it too, so that a restarted broker learns it again.

use super::{Broker, stopping};
use crate::{
    mailbox::{leases::Taker, outcomes},
    wire::{self, Inbound, MessageId, PeerId, Route, Take, Taken},
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// How many frames in a row may come to nothing.
const MOST_MISSES: u32 = 3;
/// For how long a session that idles may still let in what was written before: a hook on a busy machine.
const LATE: Duration = Duration::from_secs(2);
/// How long the next frame waits for the last at most, where nothing says that the session idles: a very long call of a tool. The
/// last is lost if the user has said something since; sooner that says nothing, since what they type meanwhile is queued, too.
const LONGEST_PENDING: Duration = Duration::from_secs(600);
/// The distance between two frames where nothing says that one was let in, at first and at most. Claude Code queues 50 messages
/// while it is busy: they last for three quarters of an hour.
const FIRST_DISTANCE: Duration = Duration::from_millis(500);
const LONGEST_DISTANCE: Duration = Duration::from_secs(60);
/// After so long without a frame the session has had time to let in what was written.
const CALM: Duration = Duration::from_secs(120);
/// How many messages that were let in are remembered: their writer may tell only later that it wrote them.
const REMEMBERED: usize = 256;

/// What is known of an inbox since this broker runs.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// The agent process whose inbox this is about.
    agent: String,
    /// Written, and not known to be let in.
    pending: Vec<MessageId>,
    /// Let in lately.
    let_in: VecDeque<MessageId>,
    /// When the last frame was written.
    written: Option<Instant>,
    /// Since when the session idles without having let it in.
    idle: Option<Instant>,
    /// The session's user has said something since.
    prompted: bool,
    /// How many frames in a row came to nothing.
    misses: u32,
    /// How many frames were written at short distances.
    frames: u32,
    /// Whose messages the broker wrote there, to be held, since this was last asked.
    pub held: Vec<PeerId>,
}

/// Whether a frame may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Now.
    Open,
    /// Not before then.
    Until(Instant),
    /// The last one is lost.
    Missed,
}

impl Door {
    /// Whether nothing more is written into it.
    pub fn is_given_up(&self) -> bool {
        self.misses >= MOST_MISSES
    }

    /// Whether something was written and is not known to be let in.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Another agent process has another inbox.
    pub fn turn_to(&mut self, agent: String) {
        if self.agent != agent {
            *self = Self { agent, ..Self::default() };
        }
    }

    /// These messages were written in one frame.
    pub fn wrote(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        let now = Instant::now();
        let calm = self.written.is_none_or(|last| last.elapsed() > CALM);
        self.frames = if calm { 1 } else { self.frames.saturating_add(1) };
        let let_in = &self.let_in;
        self.pending.extend(ids.into_iter().filter(|id| !let_in.contains(id)));
        (self.written, self.idle, self.prompted) = (Some(now), None, false);
    }

    /// This message was let in, as the hook or a reply shows.
    pub fn has_let_in(&mut self, id: &MessageId) {
        self.pending.retain(|pending| pending != id);
        self.let_in.push_back(id.clone());
        if self.let_in.len() > REMEMBERED {
            self.let_in.pop_front();
        }
        (self.misses, self.frames) = (0, 0);
    }

    /// The session shows itself idle.
    pub fn idles(&mut self) {
        if self.is_pending() {
            self.idle.get_or_insert_with(Instant::now);
        }
    }

    /// The session's user has said something.
    pub fn prompted(&mut self) {
        self.prompted = true;
    }

    fn missed(&mut self) {
        self.pending.clear();
        self.idle = None;
        self.misses += 1;
    }

    fn gate(&self, has_hook: bool, now: Instant) -> Gate {
        let Some(written) = self.written.filter(|_| !has_hook || self.is_pending()) else { return Gate::Open };
        let at = match (has_hook, self.idle) {
            (true, Some(idle)) if now >= idle + LATE => return Gate::Missed,
            (true, None) if self.prompted && now >= written + LONGEST_PENDING => return Gate::Missed,
            (true, Some(idle)) => idle + LATE,
            (true, None) => written + LONGEST_PENDING,
            (false, _) if self.frames == 0 => return Gate::Open, // a reply has come
            (false, _) => {
                let distance = FIRST_DISTANCE.saturating_mul(1 << self.frames.saturating_sub(1).min(16));
                written + distance.min(LONGEST_DISTANCE)
            }
        };
        if now >= at { Gate::Open } else { Gate::Until(at) }
    }
}

/// What a look at the peer in memory says to do.
enum Look {
    Write { agent: String },
    Wait(Option<Instant>),
    Missed { agent: String },
}

impl Broker {
    /// Leases what waits for the caller to its MCP server, which writes it into the inbox as one frame a sender; waits until there
    /// is something and the inbox is ready for it.
    ///
    /// # Errors
    /// The store's; [`wire::Code::Stopping`].
    pub(super) async fn take_for_inbox(&self, id: &PeerId, request: &Take, lease: &str, until: Instant) -> wire::Result<Taken> {
        if let Some(inbound) = request.inbound {
            self.set_inbound(id, inbound).await?;
        }
        self.recall(id).await?;
        let max_bytes = request.max_bytes.unwrap_or(super::deliver::DEFAULT_BYTES) as usize;
        let mut wake = {
            let mut state = self.state();
            let peer = state.peers.get_mut(id).ok_or_else(|| self.unknown_peer(id))?;
            if request.idle {
                peer.door.idles();
            }
            peer.wake.subscribe()
        };
        loop {
            wake.mark_unchanged();
            self.post_held(id).await?;
            let at = match self.look_at_door(id)? {
                Look::Missed { agent } => {
                    self.miss(id, agent).await?;
                    continue;
                }
                Look::Write { agent } => {
                    let taken = self.lease(id, lease, Taker::Inbox(agent), max_bytes).await?;
                    if let Some((messages, more)) = taken {
                        return self.answer_door(id, messages, more);
                    }
                    None
                }
                Look::Wait(at) => at,
            };
            if Instant::now() >= until || self.state().peers.get(id).is_some_and(|peer| !peer.door.held.is_empty()) {
                return self.answer_door(id, Vec::new(), 0);
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                () = tokio::time::sleep_until(at.unwrap_or(until).min(until)) => {}
                changed = wake.changed() => drop(changed),
            }
        }
    }

    fn answer_door(&self, id: &PeerId, messages: Vec<Inbound>, more: u32) -> wire::Result<Taken> {
        let mut state = self.state();
        let peer = state.peers.get_mut(id).ok_or_else(|| self.unknown_peer(id))?;
        Ok(Taken { messages, more, pending: peer.door.is_pending(), held: std::mem::take(&mut peer.door.held) })
    }

    fn look_at_door(&self, id: &PeerId) -> wire::Result<Look> {
        let state = self.state();
        let peer = state.peers.get(id).ok_or_else(|| self.unknown_peer(id))?;
        // A call that waits for a message is a certain route: it goes before the inbox.
        if peer.route().0 != Route::Inbox || peer.takers > 0 || peer.waiting == 0 {
            return Ok(Look::Wait(None));
        }
        Ok(match peer.door.gate(peer.has_hook(), Instant::now()) {
            Gate::Open => Look::Write { agent: peer.agent_key() },
            Gate::Until(at) => Look::Wait(Some(at)),
            Gate::Missed => Look::Missed { agent: peer.agent_key() },
        })
    }

    /// What was written into the inbox is lost there: it waits again.
    async fn miss(&self, id: &PeerId, agent: String) -> wire::Result<()> {
        let peer = id.clone();
        let missed = self.store.write(move |c| Ok(outcomes::missed(c, &peer, &agent)?)).await?;
        let given_up = {
            let mut state = self.state();
            let Some(peer) = state.peers.get_mut(id) else { return Ok(()) };
            peer.door.missed();
            peer.hint = true; // tool results may carry mail now
            peer.wake();
            peer.door.is_given_up()
        };
        tracing::warn!(peer = %id, messages = missed, "what was written into its inbox was not let in: it is handed over again");
        if given_up {
            tracing::warn!(peer = %id, "its inbox is given up: it has let in none of {MOST_MISSES} frames");
        }
        self.changes.hint();
        Ok(())
    }

    /// Learns from the store what was written into the inbox and not let in, after this broker has started.
    async fn recall(&self, id: &PeerId) -> wire::Result<()> {
        let agent = {
            let state = self.state();
            let Some(peer) = state.peers.get(id) else { return Ok(()) };
            let agent = peer.agent_key();
            if peer.door.agent == agent {
                return Ok(());
            }
            agent
        };
        let (peer, key) = (id.clone(), agent.clone());
        let pending = self.store.read(move |c| Ok(outcomes::pending(c, &peer, &key)?)).await?;
        if let Some(peer) = self.state().peers.get_mut(id).filter(|peer| peer.door.agent != agent) {
            peer.door.turn_to(agent);
            if !pending.is_empty() {
                peer.door.wrote(pending);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: i64) -> MessageId {
        MessageId::new(seq, "abc").unwrap()
    }

    #[test]
    fn the_next_frame_waits_until_the_last_was_let_in() {
        let mut door = Door::default();
        let now = Instant::now();
        assert_eq!(door.gate(true, now), Gate::Open);
        door.wrote([id(1), id(2)]);
        assert!(matches!(door.gate(true, now), Gate::Until(_)));
        door.has_let_in(&id(1));
        assert!(matches!(door.gate(true, now), Gate::Until(_)));
        door.has_let_in(&id(2));
        assert_eq!(door.gate(true, now), Gate::Open);
        door.has_let_in(&id(3)); // the hook was faster than the word that it was written
        door.wrote([id(3)]);
        assert_eq!(door.gate(true, now), Gate::Open);
    }

    #[test]
    fn a_frame_is_missed_once_the_session_idles_without_it() {
        let mut door = Door::default();
        for miss in 1..=MOST_MISSES {
            door.wrote([id(1)]);
            let now = Instant::now();
            assert!(matches!(door.gate(true, now + LATE * 2), Gate::Until(_)), "it may be busy");
            door.prompted();
            assert!(matches!(door.gate(true, now + LATE * 2), Gate::Until(_)), "what is typed meanwhile is queued, too");
            assert_eq!(door.gate(true, now + LONGEST_PENDING * 2), Gate::Missed);
            door.idles();
            assert!(matches!(door.gate(true, now), Gate::Until(_)));
            assert_eq!(door.gate(true, now + LATE * 2), Gate::Missed);
            door.missed();
            assert_eq!(door.is_given_up(), miss == MOST_MISSES);
        }
    }

    #[test]
    fn without_a_hook_frames_are_written_at_growing_distances() {
        let (mut door, mut before) = (Door::default(), Duration::ZERO);
        for _ in 0..12 {
            door.wrote([id(1)]);
            let now = Instant::now();
            let Gate::Until(at) = door.gate(false, now) else { panic!("open at once") };
            let distance = at - now;
            assert!(distance + Duration::from_millis(50) >= before && distance <= LONGEST_DISTANCE, "{distance:?}");
            before = distance;
        }
        door.has_let_in(&id(1));
        assert_eq!(door.gate(false, Instant::now()), Gate::Open);
    }
}
