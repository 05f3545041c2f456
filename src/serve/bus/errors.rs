//! The one place where an error becomes a D-Bus error.

use super::dict::plain;
use crate::wire::{self, Code};
use zbus::{
    DBusError,
    message::{Header, Message},
    names::ErrorName,
};

/// What the names of our errors begin with.
const PREFIX: &str = "dev.claudepeers.Broker1.Error.";

/// An error, on its way to the bus: its name is the code of the protocol in D-Bus spelling (`peer_not_found`:
/// `dev.claudepeers.Broker1.Error.PeerNotFound`), its text says what happened and what to do.
#[derive(Debug)]
pub struct Refusal {
    name: String,
    text: String,
}

impl From<wire::Error> for Refusal {
    fn from(error: wire::Error) -> Self {
        if error.code == Code::Internal {
            tracing::error!("{}", error.message);
        }
        Self { name: name(error.code), text: plain(error.to_string()) }
    }
}

impl DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.text)
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

fn name(code: Code) -> String {
    let code = serde_json::to_value(code).unwrap_or_default();
    let words = code.as_str().unwrap_or("unknown").split('_');
    let capital = |word: &str| word.get(..1).map(str::to_ascii_uppercase).unwrap_or_default() + word.get(1..).unwrap_or_default();
    PREFIX.to_owned() + &words.map(capital).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_keeps_its_name_on_the_bus() {
        assert_eq!(name(Code::PeerNotFound), "dev.claudepeers.Broker1.Error.PeerNotFound");
        assert_eq!(name(Code::Internal), "dev.claudepeers.Broker1.Error.Internal");
        assert!(ErrorName::try_from(name(Code::IdempotencyConflict)).is_ok());
    }
}
