//! Who is on which machine. Each machine says so every few seconds; what nobody says any more is over.

use super::{
    ends::Link,
    hub::written,
    retry::PAUSE,
    subject::{self, ALL_HELLOS, ALL_PEERS},
};
use crate::wire::{self, Announce, Done, MachineName, Peers, RemotePeer, text::printable_line};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a machine says who is there. The brokers forget a machine after four times as long.
const INTERVAL: Duration = Duration::from_secs(5);

impl Link {
    /// Publishes the sessions of this machine, at intervals and when another machine asks.
    pub(super) async fn tell_who_is_here(&self) {
        loop {
            let Ok(mut hellos) = self.hub.client.subscribe(ALL_HELLOS).await else {
                sleep(PAUSE).await;
                continue;
            };
            self.publish(subject::hello_of(&self.machine), Vec::new()).await;
            loop {
                if let Err(error) = self.publish_peers().await {
                    tracing::warn!(code = %error.code, "the broker: {}", error.message);
                }
                if let Ok(None) = timeout(INTERVAL, hellos.next()).await {
                    break;
                }
            }
        }
    }

    async fn publish_peers(&self) -> wire::Result<()> {
        let Peers { peers, .. } = self.broker.get("/v1/peers?scope=machine", None).await?;
        let peers: Vec<RemotePeer> = peers
            .into_iter()
            .map(|wire::Peer { id, name, cwd, git_repo, git_branch, summary, .. }| RemotePeer {
                id,
                name,
                cwd,
                git_repo,
                git_branch,
                summary,
            })
            .collect();
        self.publish(subject::peers_of(&self.machine), written(&peers)?).await;
        Ok(())
    }

    /// Tells the other machines that nobody can be reached here any more.
    pub(super) async fn leave(&self) {
        self.publish(subject::peers_of(&self.machine), b"[]".to_vec()).await;
        if !matches!(timeout(PAUSE, self.hub.client.flush()).await, Ok(Ok(()))) {
            tracing::debug!("the hub did not hear that this machine leaves");
        }
    }

    async fn publish(&self, subject: String, payload: Vec<u8>) {
        if let Err(error) = self.hub.client.publish(subject, payload.into()).await {
            tracing::warn!("telling the other machines who is here: {error}");
        }
    }

    /// Tells the broker who is on the other machines.
    pub(super) async fn learn_who_is_there(&self) {
        loop {
            let Ok(mut announced) = self.hub.client.subscribe(ALL_PEERS).await else {
                sleep(PAUSE).await;
                continue;
            };
            while let Some(message) = announced.next().await {
                let Some(machine) = subject::publisher(&message.subject).filter(|machine| *machine != self.machine) else {
                    continue;
                };
                if let Err(error) = self.announce(machine.clone(), &message.payload).await {
                    tracing::warn!(code = %error.code, "who is on {machine}: {}", printable_line(&error.message));
                }
            }
        }
    }

    async fn announce(&self, machine: MachineName, payload: &[u8]) -> wire::Result<()> {
        let peers = serde_json::from_slice(payload)
            .map_err(|error| wire::Error::new(wire::Code::InvalidRequest, format!("it cannot be read: {error}")))?;
        self.broker.post::<Done>("/v1/gateway/announce", None, &Announce { machine, peers }).await.map(drop)
    }
}
