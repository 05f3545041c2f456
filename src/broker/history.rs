//! What became of a message, and what was said before.

use super::{Broker, Caller, deliver::receipt};
use crate::{
    mailbox::{
        history,
        messages::{self, Message},
    },
    wire::{self, Code, Error, History, HistoryEntry, HistoryPage, MessageId, PeerId, PeerRef},
};

/// Entries given where the request names no number, and at most.
const DEFAULT_ENTRIES: u32 = 50;
const MOST_ENTRIES: u32 = 1_000;

impl Broker {
    /// A message with its receipt. A peer may ask for what it sent or was sent; the user for everything.
    ///
    /// # Errors
    /// [`Code::InvalidId`], [`Code::MessageNotFound`], [`Code::Forbidden`]; the store's.
    pub async fn message(&self, caller: &Caller, id: &str) -> wire::Result<HistoryEntry> {
        let id: MessageId = id.parse()?;
        let wanted = id.clone();
        let found = self.store.read(move |c| Ok(messages::get(c, &wanted)?)).await?;
        let message = found.ok_or_else(|| {
            Error::new(Code::MessageNotFound, format!("message {id} not found"))
                .help("check the id; messages are kept for 30 days after they were delivered or expired, or as long as CLAUDE_PEERS_HISTORY says")
        })?;
        if let Caller::Peer(peer) = caller
            && message.from != peer.as_str()
            && message.to != peer.as_str()
        {
            return Err(Error::new(Code::Forbidden, format!("message {id} is neither from nor to {peer}")));
        }
        Ok(self.entry(message))
    }

    /// Messages, newest first. A peer sees its own; the user sees everything.
    ///
    /// # Errors
    /// [`Code::InvalidId`], [`Code::InvalidRequest`]; the store's.
    pub async fn history(&self, caller: &Caller, request: &History) -> wire::Result<HistoryPage> {
        let limit = request.limit.unwrap_or(DEFAULT_ENTRIES);
        if limit == 0 || limit > MOST_ENTRIES {
            return Err(Error::new(Code::InvalidRequest, format!("limit {limit} is not 1 to {MOST_ENTRIES}")));
        }
        let before = match request.before.as_deref() {
            Some(id) => id.parse::<MessageId>()?.seq(),
            None => i64::MAX,
        };
        let peers = match (caller, request.peer.as_deref()) {
            (Caller::Peer(me), _) => Some(vec![me.clone()]),
            (Caller::User, Some(reference)) => Some(self.mentioned(&reference.parse()?)?),
            (Caller::User, None) => None,
        };
        let found = self.store.read(move |c| Ok(history::history(c, peers.as_deref(), before, limit)?)).await?;
        let full = u32::try_from(found.len()).is_ok_and(|count| count == limit);
        let next = found.last().filter(|_| full).map(|message| message.id.clone());
        Ok(HistoryPage { messages: found.into_iter().map(|message| self.entry(message)).collect(), next })
    }

    /// Every peer with this id or name, whether it is there or gone; one that is forgotten, or the command line, by its id.
    fn mentioned(&self, reference: &PeerRef) -> wire::Result<Vec<PeerId>> {
        let state = self.state();
        let id: PeerId = reference.as_str().parse()?;
        let named = state.named(reference.as_str()).map(|peer| peer.row.id.clone()).filter(|named| *named != id);
        let mut meant: Vec<PeerId> = named.collect();
        if meant.is_empty() || state.peers.contains_key(&id) {
            meant.push(id);
        }
        Ok(meant)
    }

    pub(super) fn entry(&self, message: Message) -> HistoryEntry {
        let state = self.state();
        let name = |id: &str| state.peers.get(&PeerId::lenient(id)).map_or_else(|| id.to_owned(), |peer| peer.row.name.clone());
        HistoryEntry { receipt: receipt(&message, &name(&message.to)), from_name: name(&message.from), text: message.text }
    }
}
