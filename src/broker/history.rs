//! Receipts and the history.

use super::{
    core::{Broker, Caller},
    names::unknown,
    roster::Resolved,
};
use crate::{
    db::{self, View},
    mailbox::{
        Message,
        history::{self, Filter},
    },
    platform::clock,
    wire::{
        self, BROKER_SENDER, CLI_SENDER, Code, Error, History, HistoryEntry, HistoryPage, MessageId, MessageRef, PeerId, PeerRef,
        Receipt,
    },
};

/// How many entries a request gets by default, and at most.
const DEFAULT_ENTRIES: u32 = 50;
const MOST_ENTRIES: u32 = 1_000;
/// Most bytes of text on a page; a longer text has a page of its own.
const PAGE_BYTES: usize = 1024 * 1024;
/// How much text is read at once, if each is as long as it may be.
const STEP_BYTES: usize = 4 * PAGE_BYTES;
/// Most entries that are read at once.
const MOST_AT_ONCE: usize = 50;

impl Broker {
    /// A message with its receipt. A peer may see messages that it sent or received; the user may see all.
    pub async fn message(&self, caller: &Caller, id: &str) -> wire::Result<HistoryEntry> {
        let (id, message) = self.meant(caller, id).await?;
        match caller {
            Caller::Peer(peer) if message.receipt.from != *peer && message.receipt.to != *peer => {
                Err(Error::new(Code::Forbidden, format!("message {id} is neither from nor to {peer}")))
            }
            _ => {
                let mut entry = self.entry(message);
                entry.receipt.warning = self.roster().stuck(&entry.receipt, clock::now());
                Ok(entry)
            }
        }
    }

    /// The id that `text` names. The user may name a message by its number alone. A session needs the whole id: the random part
    /// keeps it from naming a message that it has not read.
    pub(super) async fn message_id(&self, caller: &Caller, text: &str) -> wire::Result<MessageId> {
        match text.parse()? {
            MessageRef::Id(id) => Ok(id),
            MessageRef::Number(_) => Ok(self.meant(caller, text).await?.1.receipt.message_id),
        }
    }

    async fn meant(&self, caller: &Caller, text: &str) -> wire::Result<(MessageRef, Message)> {
        let meant = named(caller, text)?;
        let wanted = meant.clone();
        let found = match wanted {
            MessageRef::Id(id) => self.store.read(move |view| history::get(view, &id)).await?,
            MessageRef::Number(seq) => self.store.read(move |view| history::numbered(view, seq)).await?,
        };
        let missing = || {
            Error::new(Code::MessageNotFound, format!("message {meant} not found"))
                .help("check the id; messages are kept for 30 days after they were delivered or expired, or as long as CLAUDE_PEERS_HISTORY says")
        };
        Ok((meant.clone(), found.ok_or_else(missing)?))
    }

    /// Messages, newest first. A peer sees its own; the user sees all.
    pub async fn history(&self, caller: &Caller, request: &History) -> wire::Result<HistoryPage> {
        let limit = page_size(request.limit, DEFAULT_ENTRIES, MOST_ENTRIES)?;
        let seq = |id: &Option<String>| id.as_deref().map(|id| named(caller, id).map(|id| id.seq())).transpose();
        let peers = self.parties(caller, request.peer.as_deref())?;
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
        let is_of_all = Filter { peers: filter.peers.clone(), ..Filter::default() } == filter;
        let step = (STEP_BYTES / self.limits().text_bytes.max(1)).clamp(1, MOST_AT_ONCE);
        let (found, is_full) = self.store.read(move |view| read_page(view, filter, limit as usize, step)).await?;
        if let (Caller::User, Some(reference), true) = (caller, request.peer.as_deref(), found.is_empty() && is_of_all) {
            self.must_be_known(&reference.parse()?)?;
        }
        let next = found.last().filter(|_| is_full).map(|message| message.receipt.message_id.clone());
        Ok(HistoryPage { messages: found.into_iter().map(|message| self.entry(message)).collect(), next })
    }

    /// Whose messages `caller` may see, of those that it asks for: a peer its own, the user all, or those of one peer.
    pub(super) fn parties(&self, caller: &Caller, peer: Option<&str>) -> wire::Result<Option<Vec<PeerId>>> {
        match (caller, peer) {
            (Caller::Peer(me), _) => Ok(Some(vec![me.clone()])),
            (Caller::User, Some(reference)) => self.mentioned(&reference.parse()?).map(Some),
            (Caller::User, None) => Ok(None),
        }
    }

    /// Every peer with this id or name, including gone ones. A forgotten peer and the command line are found only by id.
    fn mentioned(&self, reference: &PeerRef) -> wire::Result<Vec<PeerId>> {
        let roster = self.roster();
        let mut meant: Vec<PeerId> = roster.named(reference.as_str()).map(|peer| peer.row.id.clone()).collect();
        // A name with a machine cannot be an id.
        if let Ok(id) = reference.as_str().parse::<PeerId>()
            && !meant.contains(&id)
            && (meant.is_empty() || roster.peers.contains_key(&id))
        {
            meant.push(id);
        }
        Ok(meant)
    }

    /// Refuses a reference that fits nobody. A forgotten peer is unknown once its last message is forgotten, too.
    fn must_be_known(&self, reference: &PeerRef) -> wire::Result<()> {
        let is_ours = [CLI_SENDER, BROKER_SENDER].contains(&reference.as_str());
        let roster = self.roster();
        let is_known = is_ours || !matches!(roster.resolve(reference, clock::now()), Resolved::None);
        if is_known { Ok(()) } else { Err(unknown(&roster, reference)) }
    }

    /// A stored message with the names of its sender and recipient.
    pub(super) fn entry(&self, message: Message) -> HistoryEntry {
        let (roster, Message { receipt, text, .. }) = (self.roster(), message);
        let to_name = roster.name(&receipt.to);
        HistoryEntry { from_name: roster.name(&receipt.from), text, receipt: Receipt { to_name, ..receipt } }
    }
}

/// A page of at most `limit` messages, of which `step` are read at once, and whether more may follow.
fn read_page(view: &View<'_>, mut filter: Filter, limit: usize, step: usize) -> db::Result<(Vec<Message>, bool)> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < limit {
        let wanted = step.min(limit - page.len());
        let found = history::list(view, &filter, u32::try_from(wanted).unwrap_or(u32::MAX))?;
        let is_end = found.len() < wanted;
        for message in found {
            bytes += message.text.len();
            if bytes > PAGE_BYTES && !page.is_empty() {
                return Ok((page, true));
            }
            let cursor = if filter.after.is_some() { &mut filter.after } else { &mut filter.before };
            *cursor = Some(message.receipt.message_id.seq());
            page.push(message);
        }
        if is_end {
            return Ok((page, false));
        }
    }
    Ok((page, true))
}

/// How many entries a request asks for.
pub(super) fn page_size(asked: Option<u32>, default: u32, most: u32) -> wire::Result<u32> {
    let limit = asked.unwrap_or(default);
    let wrong = || Error::new(Code::InvalidRequest, format!("limit {limit} is not 1 to {most}"));
    (1..=most).contains(&limit).then_some(limit).ok_or_else(wrong)
}

/// How `caller` names a message: a session only by its whole id.
fn named(caller: &Caller, text: &str) -> wire::Result<MessageRef> {
    match (caller, text.parse()?) {
        (Caller::Peer(_), MessageRef::Number(_)) => Ok(MessageRef::Id(text.parse()?)),
        (_, named) => Ok(named),
    }
}
