//! Which failures are temporary. What cannot be done now is tried until it works; only a final answer of the broker ends that.

use crate::wire::{self, Code};
use std::time::Duration;

/// The pause before something that failed is tried again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Whether an error of the broker is an answer about the message, and the same request would fail again. All others pass: the broker
/// is away, stopping, or cannot write.
pub(super) fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::EmptyMessage
            | Code::IdempotencyConflict
            | Code::InvalidId
            | Code::InvalidPath
            | Code::InvalidRequest
            | Code::MailboxFull
            | Code::MessageNotFound
            | Code::NoMailbox
            | Code::PeerNotFound
            | Code::TooLarge
    )
}

/// Calls the broker until it answers, or refuses for good.
pub(super) async fn until_answered<T>(mut call: impl AsyncFnMut() -> wire::Result<T>) -> wire::Result<T> {
    let mut is_first = true;
    loop {
        match call().await {
            Err(error) if !is_final(error.code) => {
                if std::mem::take(&mut is_first) {
                    tracing::warn!(code = %error.code, "the broker: {}; trying again until it works", error.message);
                }
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}
