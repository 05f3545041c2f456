//! What the recipient's user keeps back, and how they let it in.
//!
//! The client trusts what its own child writes into its inbox, so the MCP server does not write what is to be held. The broker
//! does, which is nobody's child: the client then holds it and asks its user. What is held takes no other way.

use super::{Broker, Caller, MessageChange};
use crate::{
    agents::{claude::inbox, shown::Shown},
    mailbox::{
        holds::{self, Rule},
        messages::Message,
    },
    platform::{clock, paths},
    wire::{self, Acknowledged, Code, Error, HeldBy, InboundRule, MessageId, MessageState, PeerId, Receipt, Status},
};
use std::path::Path;

/// Most messages that are written at once. The client keeps 100 for its user.
const MOST_POSTED: u32 = 20;

impl Broker {
    /// What `id` lets in has changed.
    pub(super) async fn set_inbound(&self, id: &PeerId, inbound: InboundRule) -> wire::Result<()> {
        let row = {
            let mut state = self.state();
            let peer = state.peers.get_mut(id).ok_or_else(|| self.unknown_peer(id))?;
            if peer.row.inbound == inbound {
                return Ok(());
            }
            peer.row.inbound = inbound;
            peer.row.clone()
        };
        self.store.write(move |c| Ok(crate::db::peers::put(c, &row)?)).await?;
        self.apply_rule(id).await
    }

    /// Applies the rule that holds messages to `id`, which has changed.
    pub(super) async fn apply_rule(&self, id: &PeerId) -> wire::Result<()> {
        let Some(rule) = self.state().peers.get(id).map(super::roster::Peer::rule) else { return Ok(()) };
        let (peer, now) = (id.clone(), clock::now());
        self.store.write(move |c| Ok(holds::apply(c, &peer, rule, now)?)).await?;
        if let Some(peer) = self.state().peers.get_mut(id) {
            peer.hint = true;
            peer.wake();
        }
        self.changes.hint();
        Ok(())
    }

    /// Writes what is held for `id` and was not given to its agent process yet into its inbox, where its client holds it. Whatever
    /// becomes of that, it is held.
    pub(super) async fn post_held(&self, id: &PeerId) -> wire::Result<()> {
        let (inbox, host, agent) = {
            let state = self.state();
            let Some(peer) = state.peers.get(id) else { return Ok(()) };
            let posts = !matches!(peer.rule(), Rule::Nothing | Rule::All(HeldBy::Refuse)) && peer.waiting > 0;
            match (&peer.row.inbox, peer.row.host) {
                (Some(inbox), Some(host)) if posts && peer.link.is_some() => (inbox.clone(), host, peer.agent_key()),
                _ => return Ok(()),
            }
        };
        let (peer, key) = (id.clone(), agent);
        let any = self.store.glance(|c| Ok(holds::has_to_post(c, id, &key)?))?;
        if !any {
            return Ok(());
        }
        let messages = self.store.write(move |c| Ok(holds::to_post(c, &peer, &key, MOST_POSTED)?)).await?;
        let (mut written, mut senders) = (Vec::new(), Vec::new());
        for message in messages {
            let (from, message_id) = (PeerId::lenient(&message.from), message.id.clone());
            let frame = self.frame_of(id, message);
            match inbox::post(Path::new(&inbox), host.pid, &frame).await {
                Ok(()) => {
                    written.push(message_id);
                    if !senders.contains(&from) {
                        senders.push(from);
                    }
                }
                Err(error) => {
                    tracing::warn!(peer = %id, message = %message_id, %error, "writing a held message into its inbox failed")
                }
            }
        }
        if !written.is_empty() {
            let now = clock::now();
            self.store.write(move |c| Ok(holds::posted(c, &written, now)?)).await?;
        }
        if let Some(peer) = self.state().peers.get_mut(id) {
            peer.door.held.extend(senders);
        }
        Ok(())
    }

    fn frame_of(&self, to: &PeerId, message: Message) -> String {
        let from = PeerId::lenient(&message.from);
        let shown: Vec<Shown> = self.inbound(vec![message]).into_iter().map(Shown::brief).collect();
        let bypasses = self.state().peers.get(&from).is_some_and(|peer| peer.row.bypasses);
        let mode = if bypasses { inbox::Mode::Bypass } else { inbox::Mode::Prompting };
        inbox::frame(&shown, Some(&paths::answers(&self.socket, to, &from)), mode)
    }

    /// The user lets a held message in.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for a session, [`Code::InvalidId`], [`Code::MessageNotFound`] if no such message is held; the store's.
    pub async fn release(&self, caller: &Caller, id: &str) -> wire::Result<Acknowledged> {
        if let Caller::Peer(peer) = caller {
            let what = format!("{peer} is a session, and only its user lets a held message in");
            return Err(Error::new(Code::Forbidden, what).help("run `claude-peers release` in a terminal of your own"));
        }
        let id: MessageId = id.parse()?;
        let held = id.clone();
        let to = self.store.write(move |c| Ok(holds::release(c, &held)?)).await?;
        let to = to.map(|to| PeerId::lenient(&to)).ok_or_else(|| {
            Error::new(Code::MessageNotFound, format!("no message {id} is held"))
                .help("`claude-peers history` shows which are, and what became of the others")
        })?;
        if let Some(peer) = self.state().peers.get_mut(&to) {
            peer.hint = true;
            peer.wake();
        }
        let from = self.message(caller, &id.to_string()).await?.receipt.from;
        tracing::info!(message = %id, peer = %to, "released by the user");
        self.changes.messages([MessageChange { id, from, to, state: MessageState::Queued, route: None }]);
        Ok(Acknowledged { changed: 1 })
    }
}

/// Why a held message was not let in, and what is known of it.
pub(super) fn explain(name: &str, status: Status, receipt: &Receipt) -> Option<String> {
    let held = receipt.held.as_ref()?;
    let why = match held.by {
        HeldBy::Mode => "one of the two sessions bypasses permission prompts and the other does not",
        HeldBy::Hold => "its settings hold messages from other sessions (crossSessionInbound)",
        HeldBy::Refuse => "its settings refuse messages from other sessions (crossSessionInbound)",
    };
    let known = match receipt.offered_at {
        Some(at) => format!("written into the session's inbox at {at}, not let in"),
        None if status == Status::Gone => "the session is not running".to_owned(),
        None => "not shown to the session".to_owned(),
    };
    let id = &receipt.message_id;
    Some(format!("held for the user of {name}: {why}; {known}; the user lets it in there, or with `claude-peers release {id}`"))
}
