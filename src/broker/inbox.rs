//! The inbox of a session's client, as the broker sees it: when the next frame may be written, and whether the last was let in.
//!
//! A frame is what is written at once. The next one waits until the last was let in, so that no limit of the client's (on rate,
//! repeats, length of its queue) ever eats one. Where the client's prompt hook runs, it confirms each message. A frame that the
//! hook does not confirm although the session idles is lost there: it is handed over again, marked as a repeat. After
//! [`MOST_MISSES`] such frames in a row the inbox is given up for that process. Without the hook nothing confirms a frame: they
//! are then written at growing distances, and a reply that names a message proves the inbox, as it does a channel.
//!
//! The state here lies in memory; a broker that has restarted learns it from the table.

use crate::{
    mailbox::InboxNews,
    wire::{MessageId, PeerId},
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

/// The state of an inbox, as far as this broker has seen it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The agent process whose inbox this is about.
    pub agent: String,
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
pub(super) enum Gate {
    /// Now.
    Open,
    /// Not before then.
    Until(Instant),
    /// The last one is lost.
    Missed,
}

impl Inbox {
    /// The inbox of this agent process, into which nothing was written yet.
    pub fn of(agent: String) -> Self {
        Self { agent, ..Self::default() }
    }

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
    pub fn wrote(&mut self, ids: impl IntoIterator<Item = MessageId>) {
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

    /// The last frame is lost, with so many messages; 0 if all of them were delivered by another route, or expired.
    fn missed(&mut self, messages: usize) {
        self.pending.clear();
        self.idle = None;
        self.misses += u32::from(messages > 0);
        if self.is_given_up() && messages > 0 {
            tracing::warn!(agent = self.agent, "an inbox is given up: it has let in none of {MOST_MISSES} frames");
        }
    }

    pub fn gate(&self, has_hook: bool, now: Instant) -> Gate {
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
