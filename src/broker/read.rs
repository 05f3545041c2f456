use super::core::{Broker, Caller};
use crate::{
    mailbox::acknowledge::read_by_user,
    platform::clock,
    wire::{self, Acknowledged, CLI_SENDER, Code, Error, MessageId, PeerId},
};
use std::sync::Arc;

impl Broker {
    /// The user has read an answer to the command line, or to the session inside of which the command line runs.
    pub async fn read_by_user(self: &Arc<Self>, caller: &Caller, inside: Option<PeerId>, id: &str) -> wire::Result<Acknowledged> {
        if let Caller::Peer(peer) = caller {
            let what = format!("{peer} is not the command line");
            return Err(Error::new(Code::Forbidden, what).help("acknowledge your own messages"));
        }
        let (id, now): (MessageId, _) = (id.parse()?, clock::now());
        let readers: Vec<PeerId> = std::iter::once(CLI_SENDER.parse()?).chain(inside).collect();
        let changed = self.commit(move |tx| Ok(read_by_user(tx, &readers, &id, now)?)).await?;
        Ok(Acknowledged { changed })
    }
}
