use super::core::{Broker, Caller};
use crate::{
    db::Durability,
    mailbox::acknowledge,
    wire::{self, Acknowledge, Acknowledged, CLI_SENDER, Code, Error, Outcome, PeerId},
};
use std::sync::Arc;

/// How many messages may be acknowledged at once: more than a mailbox holds by default.
const MOST_ACKNOWLEDGED: usize = 10_000;

impl Broker {
    /// Records what became of messages.
    pub async fn acknowledge(self: &Arc<Self>, id: &PeerId, request: Acknowledge) -> wire::Result<Acknowledged> {
        let Acknowledge { route, messages } = request;
        if messages.len() > MOST_ACKNOWLEDGED {
            let what = format!("more than {MOST_ACKNOWLEDGED} messages in one acknowledgement");
            return Err(Error::new(Code::InvalidRequest, what));
        }
        self.with_peer(id, |_| ())?;
        // A power cut may undo every other outcome: the message is then shown again, as a repeat. *Delivered* is final for the
        // sender.
        let is_delivered = messages.iter().any(|acknowledged| acknowledged.outcome == Outcome::Delivered);
        let durability = if is_delivered { Durability::Fsync } else { Durability::Process };
        let peer = id.clone();
        let changed = self.commit(durability, move |tx| acknowledge::acknowledge(tx, &peer, route, messages)).await?;
        tracing::debug!(peer = %id, %route, changed, "acknowledged {changed} messages of {id} by {route}");
        Ok(Acknowledged { changed })
    }

    /// Records that the user has read an answer to the command line, or to the session in which the command line runs.
    pub async fn read_by_user(self: &Arc<Self>, caller: &Caller, inside: Option<PeerId>, id: &str) -> wire::Result<Acknowledged> {
        caller.must_be_user("not the command line", "acknowledge your own messages")?;
        let id = self.message_id(caller, id).await?;
        let readers: Vec<PeerId> = std::iter::once(CLI_SENDER.parse()?).chain(inside).collect();
        let changed = self.commit(Durability::Fsync, move |tx| acknowledge::read_by_user(tx, &readers, &id)).await?;
        Ok(Acknowledged { changed })
    }
}
