//! The inbox of a session's client, as the broker sees it: when the next frame may be written, and whether the last was let in.
//!
//! A frame is what is written at once. The next one waits until the last was let in, so that no limit of the client's (on rate,
//! repeats, length of its queue) ever eats one. Where the client's prompt hook runs, it confirms each message. A frame that the hook
//! does not confirm although the session idles is lost there: it is handed over again, marked as a repeat. After [`MOST_MISSES`] such
//! frames in a row the inbox is given up for that process. Without the hook nothing confirms a frame: they are then written at growing
//! distances, and a reply that names a message proves the inbox, as it does a channel.
//!
//! The state here lies in memory; a broker that has restarted learns it from the table.

use super::{Broker, stopping, take::Asking, unknown_peer};
use crate::{
    db::peers,
    mailbox::{InboxNews, lease::Taker, proof, release::apply_rule},
    platform::clock,
    wire::{self, Inbound, InboundRule, MessageId, PeerId, Route, Take, Taken},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
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
pub(super) struct Inbox {
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

impl Inbox {
    /// Whether nothing more is written into it.
    pub fn is_given_up(&self) -> bool {
        self.misses >= MOST_MISSES
    }

    /// Whether something was written and is not known to be let in.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Something happened to it.
    pub fn hear(&mut self, news: InboxNews) {
        match news {
            InboxNews::Written(ids) => self.wrote(ids),
            InboxNews::LetIn(id) => self.has_let_in(&id),
            InboxNews::Missed(messages) => self.missed(messages),
            InboxNews::Prompted => self.prompted = true,
        }
    }

    /// These messages were written in one frame.
    fn wrote(&mut self, ids: impl IntoIterator<Item = MessageId>) {
        let now = Instant::now();
        let calm = self.written.is_none_or(|last| last.elapsed() > CALM);
        self.frames = if calm { 1 } else { self.frames.saturating_add(1) };
        let let_in = &self.let_in;
        self.pending.extend(ids.into_iter().filter(|id| !let_in.contains(id)));
        (self.written, self.idle, self.prompted) = (Some(now), None, false);
    }

    /// This message was let in, as the hook or a reply shows.
    fn has_let_in(&mut self, id: &MessageId) {
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

    /// What was written is lost there: so many messages. None if all of them got there by another way, or expired.
    fn missed(&mut self, messages: usize) {
        self.pending.clear();
        self.idle = None;
        self.misses += u32::from(messages > 0);
        if self.is_given_up() && messages > 0 {
            tracing::warn!(agent = self.agent, "an inbox is given up: it has let in none of {MOST_MISSES} frames");
        }
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
    pub(super) async fn take_for_inbox(self: &Arc<Self>, request: &Take, asking: Asking) -> wire::Result<Taken> {
        let Asking { id, holder, most, deadline: until, mut wake } = asking;
        if let Some(inbound) = request.inbound {
            self.set_inbound(&id, inbound).await?;
        }
        self.recall(&id).await?;
        if request.idle
            && let Some(peer) = self.roster().peers.get_mut(&id)
        {
            peer.inbox.idles();
        }
        loop {
            wake.mark_unchanged();
            self.post_held(&id).await?;
            let at = match self.look_at_inbox(&id)? {
                Look::Missed { agent } => {
                    let peer = id.clone();
                    self.commit(move |tx| Ok(((), proof::miss(tx, &peer, &agent)?))).await?;
                    continue;
                }
                Look::Write { agent } => {
                    let taken = self.lease(&id, &holder, Taker::Inbox(agent), most).await?;
                    if let Some((messages, more)) = taken {
                        return self.answer_inbox(&id, messages, more);
                    }
                    None
                }
                Look::Wait(at) => at,
            };
            if Instant::now() >= until || self.roster().peers.get(&id).is_some_and(|peer| !peer.inbox.held.is_empty()) {
                return self.answer_inbox(&id, Vec::new(), 0);
            }
            tokio::select! {
                biased;
                () = self.stopped() => return Err(stopping()),
                () = tokio::time::sleep_until(at.unwrap_or(until).min(until)) => {}
                changed = wake.changed() => drop(changed),
            }
        }
    }

    fn answer_inbox(&self, id: &PeerId, messages: Vec<Inbound>, more: u32) -> wire::Result<Taken> {
        let mut roster = self.roster();
        let peer = roster.peers.get_mut(id).ok_or_else(|| unknown_peer(id))?;
        Ok(Taken { messages, more, pending: peer.inbox.is_pending(), held: std::mem::take(&mut peer.inbox.held) })
    }

    fn look_at_inbox(&self, id: &PeerId) -> wire::Result<Look> {
        let roster = self.roster();
        let peer = roster.peers.get(id).ok_or_else(|| unknown_peer(id))?;
        // A call that waits for a message is a certain route: it goes before the inbox.
        if peer.route().0 != Route::Inbox || peer.takers > 0 {
            return Ok(Look::Wait(None));
        }
        let agent = peer.row.agent_key();
        Ok(match peer.inbox.gate(peer.row.has_hook(), Instant::now()) {
            Gate::Open => Look::Write { agent },
            Gate::Until(at) => Look::Wait(Some(at)),
            Gate::Missed => Look::Missed { agent },
        })
    }

    /// Learns from the table what was written into the inbox and not let in, after this broker has started.
    async fn recall(&self, id: &PeerId) -> wire::Result<()> {
        let agent = match self.roster().peers.get(id) {
            Some(peer) if peer.inbox.agent != peer.row.agent_key() => peer.row.agent_key(),
            _ => return Ok(()),
        };
        let (peer, key) = (id.clone(), agent.clone());
        let pending = self.store.read(move |view| proof::pending(view, &peer, &key)).await?;
        if let Some(peer) = self.roster().peers.get_mut(id).filter(|peer| peer.inbox.agent != agent) {
            peer.inbox = Inbox { agent, ..Inbox::default() };
            if !pending.is_empty() {
                peer.inbox.wrote(pending);
            }
        }
        Ok(())
    }

    /// What `id` lets in has changed.
    async fn set_inbound(self: &Arc<Self>, id: &PeerId, inbound: InboundRule) -> wire::Result<()> {
        if self.roster().peers.get(id).ok_or_else(|| unknown_peer(id))?.row.inbound == inbound {
            return Ok(());
        }
        let (peer, now) = (id.clone(), clock::now());
        self.commit(move |tx| {
            let row = peers::change(tx, &peer, |row| row.inbound = inbound)?;
            Ok(((), row.map(|row| apply_rule(tx, &row, now)).transpose()?.unwrap_or_default()))
        })
        .await?;
        if let Some(peer) = self.roster().peers.get_mut(id) {
            peer.row.inbound = inbound;
            peer.wake();
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
        let mut inbox = Inbox::default();
        let now = Instant::now();
        assert_eq!(inbox.gate(true, now), Gate::Open);
        inbox.wrote([id(1), id(2)]);
        assert!(matches!(inbox.gate(true, now), Gate::Until(_)));
        inbox.has_let_in(&id(1));
        assert!(matches!(inbox.gate(true, now), Gate::Until(_)));
        inbox.has_let_in(&id(2));
        assert_eq!(inbox.gate(true, now), Gate::Open);
        inbox.has_let_in(&id(3)); // the hook was faster than the word that it was written
        inbox.wrote([id(3)]);
        assert_eq!(inbox.gate(true, now), Gate::Open);
    }

    #[test]
    fn a_frame_is_missed_once_the_session_idles_without_it() {
        let mut inbox = Inbox::default();
        for miss in 1..=MOST_MISSES {
            inbox.wrote([id(1)]);
            let now = Instant::now();
            assert!(matches!(inbox.gate(true, now + LATE * 2), Gate::Until(_)), "it may be busy");
            inbox.hear(InboxNews::Prompted);
            assert!(matches!(inbox.gate(true, now + LATE * 2), Gate::Until(_)), "what is typed meanwhile is queued, too");
            assert_eq!(inbox.gate(true, now + LONGEST_PENDING * 2), Gate::Missed);
            inbox.idles();
            assert!(matches!(inbox.gate(true, now), Gate::Until(_)));
            assert_eq!(inbox.gate(true, now + LATE * 2), Gate::Missed);
            inbox.missed(1);
            assert_eq!(inbox.is_given_up(), miss == MOST_MISSES);
        }
    }

    #[test]
    fn without_a_hook_frames_are_written_at_growing_distances() {
        let (mut inbox, mut before) = (Inbox::default(), Duration::ZERO);
        for _ in 0..12 {
            inbox.wrote([id(1)]);
            let now = Instant::now();
            let Gate::Until(at) = inbox.gate(false, now) else { panic!("open at once") };
            let distance = at - now;
            assert!(distance + Duration::from_millis(50) >= before && distance <= LONGEST_DISTANCE, "{distance:?}");
            before = distance;
        }
        inbox.has_let_in(&id(1));
        assert_eq!(inbox.gate(false, Instant::now()), Gate::Open);
    }
}
