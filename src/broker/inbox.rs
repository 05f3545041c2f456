//! The broker's view of the inbox of a session's client: when the next frame may be written, and whether the last was let in.
//!
//! A frame is a group of messages written at once. The next frame waits until the last was let in, so the client's limits
//! (on rate, repeats and queue length) lose none. If the client's prompt hook runs, it confirms each message. A frame is lost if
//! the session idles and the hook has not confirmed it. Its messages are handed over again, marked as repeats. After
//! [`MOST_MISSES`] such frames in a row, the broker stops using the inbox of that process. Without the hook, frames are not
//! confirmed. They are then written at growing intervals, and a reply that names a message proves the inbox, as for a channel.
//!
//! The state is in memory; after a restart the broker restores it from the table.

use crate::{
    mailbox::InboxNews,
    wire::{MessageId, PeerId},
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// After this many lost frames in a row the inbox is given up.
const MOST_MISSES: u32 = 3;
/// How long an idle session may still let in a frame written before: on a busy machine its hook is slow.
const LATE: Duration = Duration::from_secs(2);
/// How long the next frame waits for the last unless the session is known to idle: as long as a very long tool call. The last
/// frame is then lost if the user has entered a prompt since. An earlier prompt proves nothing: the client queues prompts, too.
const LONGEST_PENDING: Duration = Duration::from_secs(600);
/// The interval between two unconfirmed frames, at first and at most. Claude Code queues 50 messages while it is busy; at these
/// intervals the queue lasts for three quarters of an hour.
const FIRST_DISTANCE: Duration = Duration::from_millis(500);
const LONGEST_DISTANCE: Duration = Duration::from_secs(60);
/// After this time without a frame, the session has had time to let in the earlier ones.
const CALM: Duration = Duration::from_secs(120);
/// How many let-in messages are remembered: their writer may acknowledge the write only later.
const REMEMBERED: usize = 256;

/// The state of an inbox as this broker knows it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// The agent process that owns the inbox.
    pub agent: String,
    /// Messages written but not confirmed as let in.
    pending: Vec<MessageId>,
    /// Messages let in recently.
    let_in: VecDeque<MessageId>,
    /// When the last frame was written.
    written: Option<Instant>,
    /// Since when the session has been idle without letting in the last frame.
    idle: Option<Instant>,
    /// Whether the user has entered a prompt since then.
    prompted: bool,
    /// How many frames in a row were lost.
    misses: u32,
    /// How many frames were written since a pause of [`CALM`] or since a message was let in.
    frames: u32,
    /// The senders of messages that the broker wrote there to be held, since the last query.
    pub held: Vec<PeerId>,
}

/// Whether a frame may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Until(Instant),
    /// The last frame is lost.
    Missed,
    /// Not while messages take another route.
    Closed,
}

impl Inbox {
    /// The inbox of this agent process; `pending` are the messages written but not confirmed as let in.
    pub fn of(agent: String, pending: Vec<MessageId>) -> Self {
        let mut inbox = Self { agent, ..Self::default() };
        if !pending.is_empty() {
            inbox.wrote(pending);
        }
        inbox
    }

    /// Whether the broker has stopped using the inbox.
    pub fn is_given_up(&self) -> bool {
        self.misses >= MOST_MISSES
    }

    /// Whether a written message is not yet confirmed as let in.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn hear(&mut self, news: InboxNews) {
        match news {
            InboxNews::Written(ids) => self.wrote(ids),
            InboxNews::LetIn(id) => self.has_let_in(&id),
            InboxNews::Missed(messages) => self.missed(messages),
            InboxNews::Prompted => self.prompted = true,
        }
    }

    /// Records that these messages were written in one frame.
    fn wrote(&mut self, ids: Vec<MessageId>) {
        let now = Instant::now();
        let calm = self.written.is_none_or(|last| last.elapsed() > CALM);
        self.frames = if calm { 1 } else { self.frames.saturating_add(1) };
        let let_in = &self.let_in;
        self.pending.extend(ids.into_iter().filter(|id| !let_in.contains(id)));
        (self.written, self.idle, self.prompted) = (Some(now), None, false);
    }

    /// Records that this message was let in, as the hook or a reply shows.
    fn has_let_in(&mut self, id: &MessageId) {
        self.pending.retain(|pending| pending != id);
        self.let_in.push_back(id.clone());
        if self.let_in.len() > REMEMBERED {
            self.let_in.pop_front();
        }
        (self.misses, self.frames) = (0, 0);
    }

    pub fn idles(&mut self) {
        if self.is_pending() {
            self.idle.get_or_insert_with(Instant::now);
        }
    }

    /// Records that the last frame is lost with this many messages; 0 if all of them expired or were delivered by another route.
    fn missed(&mut self, messages: usize) {
        self.pending.clear();
        self.idle = None;
        self.misses += u32::from(messages > 0);
        if self.is_given_up() && messages > 0 {
            tracing::warn!(
                agent = self.agent,
                "the inbox of the agent process {} is given up: it has let in none of {MOST_MISSES} frames",
                self.agent
            );
        }
    }

    /// `has_door`: which messages are let in, the session itself tells, and it tells of no prompt.
    pub fn gate(&self, has_hook: bool, has_door: bool, now: Instant) -> Gate {
        let Some(written) = self.written.filter(|_| !has_hook || self.is_pending()) else { return Gate::Open };
        let (at, then) = match (has_hook, self.idle) {
            (true, Some(idle)) => (idle + LATE, Gate::Missed),
            (true, None) => (written + LONGEST_PENDING, if self.prompted || has_door { Gate::Missed } else { Gate::Open }),
            (false, _) if self.frames == 0 => return Gate::Open, // a message was let in
            (false, _) => {
                let distance = FIRST_DISTANCE.saturating_mul(1 << self.frames.saturating_sub(1).min(16));
                (written + distance.min(LONGEST_DISTANCE), Gate::Open)
            }
        };
        if now >= at { then } else { Gate::Until(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: i64) -> MessageId {
        MessageId::new(seq, "abc").unwrap()
    }

    #[test]
    fn a_message_let_in_early_is_not_pending() {
        let mut inbox = Inbox::default();
        inbox.has_let_in(&id(1)); // the hook's report arrives before the acknowledgement of the write
        inbox.wrote(vec![id(1)]);
        assert_eq!(inbox.gate(true, false, Instant::now()), Gate::Open);
    }

    #[test]
    fn frame_is_missed_once_the_session_idles() {
        let mut inbox = Inbox::default();
        let is_missed = |inbox: &Inbox, at| match inbox.gate(true, false, at) {
            Gate::Missed => true,
            Gate::Until(_) => false,
            other => panic!("{other:?}"),
        };
        for miss in 1..=MOST_MISSES {
            inbox.wrote(vec![id(1)]);
            let now = Instant::now();
            assert!(!is_missed(&inbox, now + LATE * 2), "it may be busy");
            inbox.prompted = true;
            assert!(!is_missed(&inbox, now + LATE * 2), "what is typed meanwhile is queued, too");
            assert!(is_missed(&inbox, now + LONGEST_PENDING * 2));
            inbox.idles();
            assert!(!is_missed(&inbox, now) && is_missed(&inbox, now + LATE * 2));
            inbox.missed(1);
            assert_eq!(inbox.is_given_up(), miss == MOST_MISSES);
        }
    }

    #[test]
    fn frame_without_an_answer_is_missed() {
        let mut inbox = Inbox::default();
        inbox.wrote(vec![id(1)]);
        let at = Instant::now() + LONGEST_PENDING * 2;
        assert_eq!((inbox.gate(true, true, at), inbox.gate(true, false, at)), (Gate::Missed, Gate::Open));
    }
}
