//! What the broker knows of a session's user, who may have left it to itself (`look_for_users`).

use crate::wire::MessageId;

/// What is known of a session's user.
#[derive(Debug, Default)]
pub(super) struct Attended {
    /// None if nobody has looked yet.
    pub has_left: Option<bool>,
    /// The last message whose sender asks to wake the session without its user. The request ends when that message waits no more.
    pub asked: Option<MessageId>,
}

impl Attended {
    /// Whether the user has left.
    pub fn is_away(&self) -> bool {
        self.has_left == Some(true)
    }

    /// Whether the user was there at the last look.
    pub fn is_there(&self) -> bool {
        self.has_left == Some(false)
    }

    /// Whether nothing may wake the session.
    pub fn is_left_alone(&self) -> bool {
        self.is_away() && self.asked.is_none()
    }
}
