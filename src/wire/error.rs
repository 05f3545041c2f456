use super::define::{object, words};

/// Most characters of a wrong text that an error repeats.
const MAX_ECHO: usize = 40;

/// Shorthand for results of the protocol.
pub type Result<T, E = Error> = std::result::Result<T, E>;

words! {
    /// Stable, machine-readable reasons. A code once published keeps its name and meaning; new ones may be added, so a client
    /// treats a code it does not know as [`Code::Unknown`].
    #[non_exhaustive]
    pub enum Code {
        /// This path does not accept the request: broken JSON, a missing or mistyped field.
        InvalidRequest = "invalid_request",
        /// An id or peer name has the wrong shape.
        InvalidId = "invalid_id",
        UnknownScope = "unknown_scope",
        /// A path is not absolute or has control characters.
        InvalidPath = "invalid_path",
        UnsupportedMediaType = "unsupported_media_type",
        TooLarge = "too_large",
        EmptyMessage = "empty_message",
        RequestTimeout = "request_timeout",
        NotFound = "not_found",
        MethodNotAllowed = "method_not_allowed",
        PeerNotFound = "peer_not_found",
        /// No socket of a container with this name is open.
        ContainerNotFound = "container_not_found",
        /// The name fits more than one peer.
        AmbiguousPeer = "ambiguous_peer",
        MessageNotFound = "message_not_found",
        /// The caller may not do this: the web, another user, or another peer's mailbox.
        Forbidden = "forbidden",
        /// The secret belongs to no peer: register (again).
        Unauthorized = "unauthorized",
        /// The idempotency key was used before for another message.
        IdempotencyConflict = "idempotency_conflict",
        RateLimited = "rate_limited",
        /// The same text went to the same peer too often.
        RepeatLimited = "repeat_limited",
        MailboxFull = "mailbox_full",
        /// The recipient cannot receive (the command line has no mailbox; a peer cannot write to itself).
        NoMailbox = "no_mailbox",
        /// Client and broker have no protocol version in common.
        VersionMismatch = "version_mismatch",
        /// Too many connections, or too many large requests at once.
        Busy = "busy",
        /// The broker is about to stop; try again.
        Stopping = "stopping",
        /// The database was moved, replaced or cut while the broker was using it, so it may or may not keep the change. The
        /// broker ends, and the next one uses the file at the path.
        DatabaseMoved = "database_moved",
        /// Another process keeps the database's lock, so nothing was stored.
        DatabaseLocked = "database_locked",
        /// The broker could not do its work (disk full, database damaged).
        Internal = "internal",
        /// The broker cannot be reached. Reported by the client, never by the broker.
        Unreachable = "unreachable",
        /// A code that this build does not know.
        #[serde(other)]
        Unknown = "unknown",
    }
}

object! {
    /// An error of the protocol: what happened, to which thing, and what to do next. On the wire it stands in
    /// `{"error": {"code", "message", "help"?, "retryAfterMs"?}}`.
    #[derive(thiserror::Error)]
    #[error("{message}{}", .help.as_deref().map(|help| format!("; {help}")).unwrap_or_default())]
    pub struct Error {
        pub code: Code,
        /// What happened, for a person or a model.
        pub message: String,
        pub help: Option<String>,
        /// For limits: the number of milliseconds after which the same request would pass.
        pub retry_after_ms: Option<u64>,
    }
}

/// As much of a wrong text as an error repeats: the text comes from outside and may be huge.
pub fn echo(text: &str) -> String {
    text.chars().take(MAX_ECHO).collect()
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, retry_after_ms: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }
}
