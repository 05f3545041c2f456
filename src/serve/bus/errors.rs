//! The one place where an error becomes a D-Bus error. Its name is the code of the protocol in D-Bus spelling (`peer_not_found`:
//! `dev.claudepeers.Broker1.Error.PeerNotFound`), its text says what happened and what to do.

use super::dict::plain;
use crate::wire::{Code, Error};
use zbus::{
    DBusError,
    message::{Header, Message},
    names::ErrorName,
};

impl DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        if self.code == Code::Internal {
            tracing::error!("{}", self.message);
        }
        Message::error(call, self.name()).build(&plain(self.to_string()))
    }

    fn name(&self) -> ErrorName<'_> {
        let words = self.code.as_str().split('_');
        let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        ErrorName::from_string_unchecked("dev.claudepeers.Broker1.Error.".to_owned() + &words.map(capital).collect::<String>())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}
