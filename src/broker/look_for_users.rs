//! Whether a session's user is there. Some agents outlive the terminal in which their user sat: Gemini CLI does, and so do the threads in
//! Codex's daemon. Such a session is `unattended`: nothing wakes it, and its mail waits, unless a sender asks for that.
//!
//! The kernel tells it, when a list is shown, when a message comes, and now and then while mail waits for such a session.

use super::{core::Broker, peer::Peer};
use crate::{
    mailbox::history,
    wire::{self, Door, MessageId, MessageState, PeerId, Process},
};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// How soon the user is looked for again while mail waits.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Where the user of a session sits.
#[derive(Clone, Copy)]
enum Seat {
    /// In the terminal of this agent process.
    Terminal(Process),
    /// In some terminal of the daemon that has started this MCP server.
    Daemon(Process),
}

fn seat(peer: &Peer) -> Option<Seat> {
    if peer.row.door == Some(Door::Daemon) {
        return peer.row.process.map(Seat::Daemon);
    }
    peer.row.agent.filter(|_| peer.row.tty.is_some()).map(Seat::Terminal)
}

impl Broker {
    /// Looks whether the users of the sessions that `which` picks are there.
    pub(super) async fn look_for_users(&self, which: impl Fn(&Peer) -> bool) {
        let seats: Vec<(PeerId, Seat)> = {
            let roster = self.roster();
            let seated = |peer: &Peer| Some((peer.row.id.clone(), seat(peer)?));
            roster.peers.values().filter(|peer| which(peer)).filter_map(seated).collect()
        };
        let in_terminals =
            seats.iter().filter_map(|(_, seat)| if let Seat::Terminal(agent) = seat { Some(*agent) } else { None });
        let of_daemons = seats.iter().filter_map(|(_, seat)| if let Seat::Daemon(server) = seat { Some(*server) } else { None });
        let (terminals, daemons) =
            tokio::join!(self.probes.terminals.ask_all(in_terminals), self.probes.daemon_users.ask_all(of_daemons));
        let left: HashSet<PeerId> = seats
            .into_iter()
            .filter(|(_, seat)| match seat {
                Seat::Terminal(agent) => terminals.get(agent) == Some(&false),
                Seat::Daemon(server) => daemons.get(server) == Some(&false),
            })
            .map(|(id, _)| id)
            .collect();
        let mut asked = Vec::new();
        for peer in self.roster().peers.values_mut().filter(|peer| which(peer)) {
            peer.attended.has_left = Some(left.contains(&peer.row.id));
            asked.extend(peer.attended.asked.clone().map(|message| (peer.row.id.clone(), message)));
        }
        for (id, message) in asked {
            self.forget_read(&id, &message);
        }
    }

    /// Forgets that the sender of this message has asked to wake the session, if the message waits no more.
    fn forget_read(&self, id: &PeerId, asked: &MessageId) {
        let waits = |state| [MessageState::Queued, MessageState::Offered, MessageState::Held].contains(&state);
        let is_over = self
            .store
            .glance(|view| Ok::<_, crate::db::Error>(history::get(view, asked)?.is_none_or(|m| !waits(m.receipt.state))));
        if is_over.is_ok_and(|is_over| is_over)
            && let Some(peer) = self.roster().peers.get_mut(id)
        {
            peer.attended.asked.take_if(|newest| newest == asked);
        }
    }

    /// The sender of this message asks to wake its recipient even if its user has left.
    pub(super) fn ask_to_wake(&self, id: &PeerId, message: MessageId) {
        if let Some(peer) = self.roster().peers.get_mut(id) {
            peer.attended.asked = Some(message);
            peer.wake();
        }
        self.changes.hint();
    }

    /// When to look again for the user of a session that has waiting mail, if the user has left.
    pub(super) fn looks_again(&self, id: &PeerId) -> wire::Result<Option<Instant>> {
        let is_left_alone = self.with_peer(id, |peer| peer.attended.is_left_alone())?;
        let has_mail = is_left_alone && self.store.glance(|view| history::newest_waiting(view, id, None))?.is_some();
        Ok(has_mail.then(|| Instant::now() + LOOK_AGAIN))
    }
}
