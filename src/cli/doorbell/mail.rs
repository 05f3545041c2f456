//! What all doorbells have in common: how they wait for mail, and the line that tells of it.

use crate::{
    client::{Client, with_query},
    wire::{self, Code, Mail, MessageId, Peer},
};
use serde_json::json;
use std::time::Duration;

/// What is typed or printed. It begins with no agent's command, and a shell would find no command in it.
pub const LINE: &str = "Please call check_messages: other sessions have written.";
/// The pause after the broker or the session's server has gone away for a moment.
pub const AWAY: Duration = Duration::from_secs(1);
/// How long one request waits for mail, in seconds.
const LONGEST_WAIT: u32 = 3_600;

/// Waits for mail for this session.
pub async fn mail(broker: &Client, peer: &Peer, after: Option<&MessageId>) -> wire::Result<Mail> {
    let query = json!({ "waitSeconds": LONGEST_WAIT, "after": after });
    let path = with_query(&format!("/v1/peers/{}/mail", peer.id), &query);
    broker.get_waiting(&path, None, Duration::from_secs(LONGEST_WAIT.into())).await
}

/// Whether the broker may answer later.
pub fn passes(error: &wire::Error) -> bool {
    matches!(error.code, Code::Unreachable | Code::Stopping | Code::DatabaseMoved | Code::Busy)
}
