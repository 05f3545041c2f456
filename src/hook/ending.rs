//! The end of a session: it leaves the list of peers at once, and its mailbox stays.

use super::{Host, Input, broker::Broker};
use crate::wire::Ok as Yes;
use serde_json::json;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long the broker may take to note it; Claude Code waits for 1.5 s at the longest. Without it the peer leaves when its
/// process does.
const PATIENCE: Duration = Duration::from_secs(1);
/// Why a session ends whose process goes on: with another conversation.
const GOES_ON: [&str; 2] = ["clear", "resume"];

/// Takes the session off the list.
pub fn leave(host: &Host, input: &Input) -> ExitCode {
    if !input.reason.as_deref().is_some_and(|reason| GOES_ON.contains(&reason))
        && let Ok(mut broker) = Broker::connect(Some(host))
    {
        let until = Instant::now() + PATIENCE;
        drop(broker.post::<Yes>("/v1/unregister", &json!({}), Some(until)));
    }
    ExitCode::SUCCESS
}
