use crate::{
    db,
    wire::{MessageId, PeerId},
};

/// Why the mailbox could not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Results of the mailbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a rule refuses a message; it is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("idempotency key {key:?} was used before, for message {message}")]
    KeyReused { key: String, message: MessageId },
    #[error("Peer {0} not found")]
    NoSuchRecipient(PeerId),
    #[error("the sender is not registered")]
    UnknownSender,
    #[error("{waiting} messages wait for {name} already; at most {most} are kept")]
    MailboxFull { waiting: u32, most: u32, name: String },
    #[error("replyTo names {0}, which is no message to or from this sender")]
    NoSuchQuestion(MessageId),
    /// The mailbox of the command line takes only answers.
    #[error("cli has no mailbox but for answers to what it sent, and {0} is none of that")]
    NotAskedByCli(MessageId),
}
