//! Held messages: shows them to the user, who may let them in.
//!
//! The client trusts messages that its own child, the MCP server, writes into its inbox. The broker is not its child, so it
//! writes held messages itself: the client then holds them and asks its user. A held message takes no other route.

use super::core::{Broker, Caller};
use crate::{
    agents::{claude::inbox, shown::Shown, socket},
    db::Durability,
    mailbox::{
        Message,
        release::{Rule, has_to_post, posted, release, to_post},
    },
    platform::paths,
    wire::{self, Acknowledged, Code, Error, HeldBy, PeerId, Receipt, Status},
};
use std::{path::Path, sync::Arc};

/// How many messages are written at once. The client keeps 100 for its user.
const MOST_POSTED: u32 = 20;

impl Broker {
    /// Writes the held messages of `id` that its agent process was not given yet into its inbox, where the client holds them.
    /// If that fails, they stay held.
    pub(super) async fn post_held(self: &Arc<Self>, id: &PeerId) -> wire::Result<()> {
        let to = self.with_peer(id, |peer| {
            let holds = !matches!(Rule::of(&peer.row), Rule::Nothing | Rule::All(HeldBy::Refuse));
            let posts = holds && peer.stream.is_some() && peer.row.container.is_none(); // no path of a container is opened here
            posts.then(|| Some((peer.row.inbox.clone()?, peer.row.agent?, peer.row.agent_key())))
        });
        let Some((inbox, agent, key)) = to?.flatten() else { return Ok(()) };
        if !self.store.glance(|view| has_to_post(view, id, &key))? {
            return Ok(());
        }
        let peer = id.clone();
        let messages = self.commit(Durability::Fsync, move |tx| to_post(tx, &peer, &key, MOST_POSTED)).await?;
        let (mut written, mut senders) = (Vec::new(), Vec::new());
        for message in messages {
            let (from, message_id) = (message.receipt.from.clone(), message.receipt.message_id.clone());
            let frame = self.frame_of(id, message);
            if let Err(error) = socket::post(Path::new(&inbox), agent.pid, &frame).await {
                tracing::warn!(peer = %id, _message = %message_id, %error, "writing the held message {message_id} into the inbox of {id} failed: {error}");
                continue;
            }
            written.push(message_id);
            if !senders.contains(&from) {
                senders.push(from);
            }
        }
        if !written.is_empty() {
            self.commit(Durability::Process, move |tx| posted(tx, &written)).await?;
        }
        self.with_peer(id, |peer| peer.inbox.held.extend(senders))
    }

    fn frame_of(&self, to: &PeerId, message: Message) -> String {
        let from = message.receipt.from.clone();
        let shown: Vec<Shown> = self.inbound(vec![message]).into_iter().map(Shown::brief).collect();
        // Only inboxes outside of all containers are written to here.
        let bypasses = self.roster().peers.get(&from).is_some_and(|peer| peer.row.bypasses_for(None));
        let mode = if bypasses { inbox::Mode::Bypass } else { inbox::Mode::Prompting };
        inbox::frame(&shown, Some(&paths::answers(&self.socket, to, &from)), mode)
    }

    pub async fn release(self: &Arc<Self>, caller: &Caller, id: &str) -> wire::Result<Acknowledged> {
        let why = "a session, and only its user lets a held message in";
        caller.must_be_user(why, "run `claude-peers release` in a terminal of your own")?;
        let id = self.message_id(caller, id).await?;
        let held = id.clone();
        if !self.commit(Durability::Fsync, move |tx| release(tx, &held)).await? {
            return Err(Error::new(Code::MessageNotFound, format!("no message {id} is held"))
                .help("`claude-peers history` shows which are, and what became of the others"));
        }
        tracing::info!(_message = %id, "the user has released {id}");
        Ok(Acknowledged { changed: 1 })
    }
}

/// Explains why a message is held, and where it is now.
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
