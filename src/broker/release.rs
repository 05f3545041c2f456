//! Held messages: how their user sees them and lets them in.
//!
//! The client trusts what its own child writes into its inbox, so the MCP server does not write what is to be held. The broker
//! does, which is nobody's child: the client then holds it and asks its user. A held message takes no other route.

use super::core::{Broker, Caller};
use crate::{
    agents::{claude::inbox, shown::Shown},
    mailbox::{
        Message,
        release::{Rule, has_to_post, posted, release, to_post},
    },
    platform::{clock, paths},
    wire::{self, Acknowledged, Code, Error, HeldBy, MessageId, PeerId, Receipt, Status},
};
use std::{path::Path, sync::Arc};

/// Most messages that are written at once. The client keeps 100 for its user.
const MOST_POSTED: u32 = 20;

impl Broker {
    /// Writes what is held for `id` and was not given to its agent process yet into its inbox, where its client holds it.
    /// Whatever becomes of that, it is held.
    pub(super) async fn post_held(self: &Arc<Self>, id: &PeerId) -> wire::Result<()> {
        let (inbox, agent, key) = {
            let roster = self.roster();
            let Some(peer) = roster.peers.get(id) else { return Ok(()) };
            let posts = !matches!(Rule::of(&peer.row), Rule::Nothing | Rule::All(HeldBy::Refuse));
            match (&peer.row.inbox, peer.row.agent) {
                (Some(inbox), Some(agent)) if posts && peer.stream.is_some() => (inbox.clone(), agent, peer.row.agent_key()),
                _ => return Ok(()),
            }
        };
        if !self.store.glance(|view| has_to_post(view, id, &key))? {
            return Ok(());
        }
        let peer = id.clone();
        let messages = self.commit(move |tx| Ok(to_post(tx, &peer, &key, MOST_POSTED)?)).await?;
        let (mut written, mut senders) = (Vec::new(), Vec::new());
        for message in messages {
            let (from, message_id) = (message.receipt.from.clone(), message.receipt.message_id.clone());
            let frame = self.frame_of(id, message);
            match inbox::post(Path::new(&inbox), agent.pid, &frame).await {
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
            self.note(move |tx| Ok(((), posted(tx, &written, now)?))).await?;
        }
        if let Some(peer) = self.roster().peers.get_mut(id) {
            peer.inbox.held.extend(senders);
        }
        Ok(())
    }

    fn frame_of(&self, to: &PeerId, message: Message) -> String {
        let from = message.receipt.from.clone();
        let shown: Vec<Shown> = self.inbound(vec![message]).into_iter().map(Shown::brief).collect();
        let bypasses = self.roster().peers.get(&from).is_some_and(|peer| peer.row.bypasses);
        let mode = if bypasses { inbox::Mode::Bypass } else { inbox::Mode::Prompting };
        inbox::frame(&shown, Some(&paths::answers(&self.socket, to, &from)), mode)
    }

    /// The user lets a held message in.
    pub async fn release(self: &Arc<Self>, caller: &Caller, id: &str) -> wire::Result<Acknowledged> {
        if let Caller::Peer(peer) = caller {
            let what = format!("{peer} is a session, and only its user lets a held message in");
            return Err(Error::new(Code::Forbidden, what).help("run `claude-peers release` in a terminal of your own"));
        }
        let id: MessageId = id.parse()?;
        let held = id.clone();
        if !self.commit(move |tx| Ok(release(tx, &held)?)).await? {
            return Err(Error::new(Code::MessageNotFound, format!("no message {id} is held"))
                .help("`claude-peers history` shows which are, and what became of the others"));
        }
        tracing::info!(message = %id, "released by the user");
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
