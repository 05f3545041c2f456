use serde::{Deserialize, Serialize};

/// Shorthand for results of the protocol.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Stable, machine-readable reasons. A code once published keeps its name and meaning; new ones may be added, so a client
/// treats a code it does not know as [`Code::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The request is not what this path takes: broken JSON, a missing or mistyped field.
    InvalidRequest,
    /// An id or peer name has the wrong shape.
    InvalidId,
    /// The scope is none of `machine`, `directory`, `repo`.
    UnknownScope,
    /// A path is not absolute or has control characters.
    InvalidPath,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// The body or the message text is over its limit.
    TooLarge,
    /// The message text is empty.
    EmptyMessage,
    /// The request did not arrive in time.
    RequestTimeout,
    /// No such path.
    NotFound,
    /// The path exists, but not for this HTTP method.
    MethodNotAllowed,
    /// No peer has this id or name.
    PeerNotFound,
    /// The name fits more than one peer.
    AmbiguousPeer,
    /// No message has this id.
    MessageNotFound,
    /// The caller may not do this: the web, another user, or another peer's mailbox.
    Forbidden,
    /// The secret belongs to no peer: register (again).
    Unauthorized,
    /// The idempotency key was used before for another message.
    IdempotencyConflict,
    /// The sender sends too many messages.
    RateLimited,
    /// The same text went to the same peer too often.
    RepeatLimited,
    /// The recipient has too many waiting messages.
    MailboxFull,
    /// The recipient cannot receive (the command line has no mailbox; a peer cannot write to itself).
    NoMailbox,
    /// Client and broker have no protocol version in common.
    VersionMismatch,
    /// Too many connections.
    Busy,
    /// The broker is about to stop; try again.
    Stopping,
    /// The broker could not do its work (disk full, database damaged).
    Internal,
    /// The broker cannot be reached. Said by the client, never by the broker.
    Unreachable,
    /// A code that this build does not know.
    #[serde(other)]
    Unknown,
}

/// An error of the protocol: what happened, to which thing, and what to do next. On the wire it stands in
/// `{"error": {"code", "message", "help"?, "retryAfterMs"?}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(as = Error))]
#[serde(rename_all = "camelCase")]
#[error("{message}{}", .help.as_deref().map(|help| format!("; {help}")).unwrap_or_default())]
pub struct Error {
    /// The stable reason.
    pub code: Code,
    /// What happened, for a person or a model.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// For limits: in how many milliseconds the same request would pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Error {
    /// An error that says what happened.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, retry_after_ms: None }
    }

    /// The same error, saying what to do next.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error, saying when the request would pass.
    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }
}

impl From<super::InvalidId> for Error {
    fn from(error: super::InvalidId) -> Self {
        Self::new(Code::InvalidId, error.to_string())
    }
}
