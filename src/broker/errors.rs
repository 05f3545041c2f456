//! Maps the errors of the database and the mailbox to those of the protocol. No other file does.

use crate::{
    db,
    mailbox::{self, Refusal},
    wire::{Code, Error},
};

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Closed => {
                Self::new(Code::Stopping, "the broker is stopping").help("try again in a moment; nothing was stored")
            }
            db::Error::Locked(ref file) => Self::new(Code::DatabaseLocked, error.to_string()).help(format!(
                "nothing was stored; `fuser {}` names the process: end it or wait for it, then try again",
                file.display()
            )),
            moved @ db::Error::Moved(_) => Self::new(Code::DatabaseMoved, moved.to_string())
                .help("look for the message in `claude-peers history`, then send it again"),
            index @ db::Error::Index { .. } => Self::new(Code::Internal, index.to_string())
                .help("move that file away and search again: the broker rebuilds it from the messages, which are untouched"),
            damaged if damaged.is_damage() => Self::new(Code::Internal, format!("the broker's database is damaged: {damaged}"))
                .help("try again in a moment; the broker repairs it and starts again"),
            full if full.is_disk_full() => {
                Self::new(Code::Internal, format!("the disk that holds the broker's database is full: {full}"))
                    .help("free some space and try again; nothing was stored")
            }
            other => Self::new(Code::Internal, format!("the broker could not use its database: {other}"))
                .help("nothing was stored; see `claude-peers status` and the broker's log"),
        }
    }
}

impl From<mailbox::Error> for Error {
    fn from(error: mailbox::Error) -> Self {
        match error {
            mailbox::Error::Db(error) => error.into(),
            mailbox::Error::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let (code, help) = match refusal {
            Refusal::KeyReused { .. } => (Code::IdempotencyConflict, "use a new key for a new message"),
            Refusal::NoSuchRecipient(_) => return Self::new(Code::PeerNotFound, refusal.to_string()),
            Refusal::UnknownSender => (Code::Unauthorized, "register again"),
            Refusal::MailboxFull { .. } => (Code::MailboxFull, "wait until it has read some; it has been told that mail waits"),
            Refusal::NoSuchQuestion(_) => {
                (Code::MessageNotFound, "use the message_id of the message you answer, or leave replyTo out")
            }
            Refusal::NotAskedByCli(_) => (Code::NoMailbox, "list the peers to see who can be written to"),
        };
        Self::new(code, refusal.to_string()).help(help)
    }
}
