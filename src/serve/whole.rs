//! Work that is done to its end, also when whoever asked for it goes away meanwhile.
//!
//! A handler ends with its connection, wherever it waits. A verb that changes something has a commit in its middle: what is
//! on disk and what the broker remembers of it must not part there.

use crate::{
    broker::Broker,
    wire::{self, Code, Error},
};
use std::sync::Arc;

/// Does all of `work` with the broker.
///
/// # Errors
/// The work's own.
pub(super) async fn whole<T, F>(broker: &Arc<Broker>, work: impl FnOnce(Arc<Broker>) -> F) -> wire::Result<T>
where
    T: Send + 'static,
    F: Future<Output = wire::Result<T>> + Send + 'static,
{
    let done = tokio::spawn(work(broker.clone())).await;
    done.unwrap_or_else(|error| Err(Error::new(Code::Internal, format!("the request was not finished: {error}"))))
}
