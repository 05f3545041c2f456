use super::core::Broker;
use crate::{
    db,
    mailbox::history,
    wire::{self, API, BrokerStatus, DatabaseStatus, ListenerStatus, VERSION},
};
use std::sync::PoisonError;

impl Broker {
    /// The broker's state. `serve` provides the `listeners`.
    pub async fn status(&self, listeners: Vec<ListenerStatus>) -> wire::Result<BrokerStatus> {
        let count = |view: &db::View<'_>| Ok::<_, db::Error>((history::stored(view)?, history::waiting_in_all(view)?));
        let (messages, waiting) = self.store.read(count).await?;
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(BrokerStatus {
            version: VERSION.to_owned(),
            api: API,
            pid: std::process::id(),
            started_at: self.started_at,
            peers: self.peer_count().await,
            listeners,
            database: DatabaseStatus {
                path: self.store.path().to_string_lossy().into_owned(),
                bytes: self.store.size(),
                waiting,
                messages,
            },
            notices,
        })
    }

    /// How many messages wait for all peers together.
    pub fn waiting_count(&self) -> wire::Result<u64> {
        Ok(self.store.glance(history::waiting_in_all)?)
    }
}
