//! What a connection has in its hands: the leases of hooks, which end with it.
//!
//! A hook is a process that lives for one hand-over. When its connection ends, it has said what it showed or it never will: what
//! it held then waits again, and counts as possibly shown.

use super::{Broker, state};
use crate::{
    store::leases,
    wire::{self, PeerId},
};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The hands of one connection. The leases end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Hands(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: Weak<Broker>,
    held: Mutex<Vec<(PeerId, String)>>,
}

impl Hands {
    /// The hands of a new connection.
    pub fn of(broker: &Arc<Broker>) -> Self {
        Self(Arc::new(Inner { broker: Arc::downgrade(broker), held: Mutex::default() }))
    }

    /// The full name of the lease that a hook of `peer` calls `lease`, held from now on.
    pub(super) fn hold(&self, peer: &PeerId, lease: &str) -> String {
        let lease = state::hook_lease(lease);
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner).push((peer.clone(), lease.clone()));
        lease
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let held = std::mem::take(self.held.get_mut().unwrap_or_else(PoisonError::into_inner));
        if held.is_empty() {
            return;
        }
        // Without a broker or a runtime everything ends, and the next broker begins by ending these leases.
        if let (Some(broker), Ok(runtime)) = (self.broker.upgrade(), tokio::runtime::Handle::try_current()) {
            if *broker.stopping.borrow() {
                return;
            }
            runtime.spawn(async move {
                for (peer, lease) in held {
                    if let Err(error) = broker.let_go(&peer, lease).await {
                        tracing::warn!(peer = %peer, %error, "ending the lease of a hook that is gone failed");
                    }
                }
            });
        }
    }
}

impl Broker {
    /// A hook is gone: what it held and did not settle waits again.
    async fn let_go(&self, peer: &PeerId, lease: String) -> wire::Result<()> {
        let id = peer.clone();
        let let_go = self.store.write(move |c| Ok(leases::let_go(c, &id, &lease)?)).await?;
        if let_go > 0 {
            tracing::info!(peer = %peer, messages = let_go, "a hook is gone without saying what it showed");
            if let Some(peer) = self.state().peers.get_mut(peer) {
                peer.hint = true;
                peer.wake();
            }
        }
        Ok(())
    }
}
