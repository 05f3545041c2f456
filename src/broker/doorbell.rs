//! The doorbells of a session, which tell it that mail waits (`mail`).

use crate::wire::{MessageId, Process};

/// The doorbells of a peer.
#[derive(Debug, Default)]
pub(super) struct Doorbell {
    /// How many requests wait for mail now.
    pub waiting: u32,
    /// The newest message of which the session's own doorbell has told it, and the agent process that it told.
    pub rung: Option<(Option<Process>, MessageId)>,
}

impl Doorbell {
    /// Whether the session is told when mail comes.
    pub fn rings(&self) -> bool {
        self.waiting > 0
    }
}
