//! Receipts and the history.

use super::core::{Broker, Caller};
use crate::{
    mailbox::{
        Message,
        history::{self, Filter},
    },
    wire::{self, Code, Error, History, HistoryEntry, HistoryPage, MessageId, PeerId, PeerRef, Receipt},
};

/// How many entries a request gets by default, and at most.
const DEFAULT_ENTRIES: u32 = 50;
const MOST_ENTRIES: u32 = 1_000;

impl Broker {
    /// A message with its receipt. A peer may see messages that it sent or received; the user may see all.
    pub async fn message(&self, caller: &Caller, id: &str) -> wire::Result<HistoryEntry> {
        let id: MessageId = id.parse()?;
        let wanted = id.clone();
        let found = self.store.read(move |view| history::get(view, &wanted)).await?;
        let message = found.ok_or_else(|| {
            Error::new(Code::MessageNotFound, format!("message {id} not found"))
                .help("check the id; messages are kept for 30 days after they were delivered or expired, or as long as CLAUDE_PEERS_HISTORY says")
        })?;
        match caller {
            Caller::Peer(peer) if message.receipt.from != *peer && message.receipt.to != *peer => {
                Err(Error::new(Code::Forbidden, format!("message {id} is neither from nor to {peer}")))
            }
            _ => Ok(self.entry(message)),
        }
    }

    /// Messages, newest first. A peer sees its own; the user sees all.
    pub async fn history(&self, caller: &Caller, request: &History) -> wire::Result<HistoryPage> {
        let limit = request.limit.unwrap_or(DEFAULT_ENTRIES);
        if limit == 0 || limit > MOST_ENTRIES {
            return Err(Error::new(Code::InvalidRequest, format!("limit {limit} is not 1 to {MOST_ENTRIES}")));
        }
        let seq = |id: &Option<String>| id.as_deref().map(|id| id.parse::<MessageId>().map(|id| id.seq())).transpose();
        let peers = match (caller, request.peer.as_deref()) {
            (Caller::Peer(me), _) => Some(vec![me.clone()]),
            (Caller::User, Some(reference)) => Some(self.mentioned(&reference.parse()?)?),
            (Caller::User, None) => None,
        };
        let to = request.to.as_deref().map(|to| self.mentioned(&to.parse()?)).transpose()?;
        let after = match request.after.as_deref() {
            Some("0") => Some(0),
            _ => seq(&request.after)?,
        };
        let filter = Filter {
            after,
            peers,
            to,
            before: seq(&request.before)?,
            since: request.since,
            until: request.until,
            state: request.state,
            thread: seq(&request.thread)?,
            ..Filter::default()
        };
        let found = self.store.read(move |view| history::list(view, &filter, limit)).await?;
        let full = u32::try_from(found.len()).is_ok_and(|count| count == limit);
        let next = found.last().filter(|_| full).map(|message| message.receipt.message_id.clone());
        Ok(HistoryPage { messages: found.into_iter().map(|message| self.entry(message)).collect(), next })
    }

    /// Every peer with this id or name, including gone ones. A forgotten peer and the command line are found only by id.
    pub(super) fn mentioned(&self, reference: &PeerRef) -> wire::Result<Vec<PeerId>> {
        let roster = self.roster();
        let id: PeerId = reference.as_str().parse()?;
        let named = roster.named(reference.as_str()).map(|peer| peer.row.id.clone()).filter(|named| *named != id);
        let mut meant: Vec<PeerId> = named.collect();
        if meant.is_empty() || roster.peers.contains_key(&id) {
            meant.push(id);
        }
        Ok(meant)
    }

    /// A stored message with the names of its sender and recipient.
    pub(super) fn entry(&self, message: Message) -> HistoryEntry {
        let (roster, Message { receipt, text, .. }) = (self.roster(), message);
        let to_name = roster.name(&receipt.to);
        HistoryEntry { from_name: roster.name(&receipt.from), text, receipt: Receipt { to_name, ..receipt } }
    }
}
