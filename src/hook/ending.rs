//! The end of a session: it leaves the list of peers at once, and its mailbox stays.

use super::{Host, Input, PATIENCE, broker::Broker};
use crate::wire::Ok as Yes;
use serde_json::json;
use std::{process::ExitCode, time::Instant};

/// Why a session ends whose process goes on: with another conversation.
const GOES_ON: [&str; 2] = ["clear", "resume"];

/// Takes the session off the list, unless it may go on. A broker that takes longer notes it all the same, or with the end of
/// the session's process.
pub fn leave(host: &Host, input: &Input) -> ExitCode {
    if input.unread.is_none()
        && !input.reason.as_deref().is_some_and(|reason| GOES_ON.contains(&reason))
        && let Ok(mut broker) = Broker::connect(Some(host))
    {
        let until = Instant::now() + PATIENCE;
        drop(broker.post::<Yes>("/v1/unregister", &json!({}), Some(until)));
    }
    ExitCode::SUCCESS
}
