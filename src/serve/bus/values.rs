//! The protocol's answers and errors on the bus.
//!
//! An answer is a dictionary with the same fields under the same names as over HTTP. Text is `s`, a number `t`, true or false `b`,
//! an object `a{sv}`, a list of texts `as`, a list of objects `aa{sv}`. Unknown values are left out. Text is made printable, because
//! any program may show it; a zero byte would even end the connection. An error's name is the protocol's code in D-Bus spelling
//! (`peer_not_found`: `dev.claudepeers.Broker1.Error.PeerNotFound`), its text says what happened and what to do.

use crate::wire::{
    self, Code, Error,
    text::{each_text, printable},
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use zbus::{
    DBusError, Variant,
    message::{Header, Message},
    names::ErrorName,
};

pub type Dict = BTreeMap<String, Variant<'static>>;

/// The fields of `answer`. Fails if it is not an object.
pub fn dict(answer: &impl Serialize) -> wire::Result<Dict> {
    match serde_json::to_value(answer).map(|value| each_text(value, printable)) {
        Ok(Value::Object(fields)) => Ok(fields.into_iter().filter_map(|(name, value)| Some((name, variant(value)?))).collect()),
        other => Err(Error::new(Code::Internal, format!("{other:?} is no dictionary"))),
    }
}

fn variant(value: Value) -> Option<Variant<'static>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(yes) => yes.into(),
        // All our numbers are counts, so none is negative.
        Value::Number(number) => number.as_u64()?.into(),
        Value::String(text) => text.into(),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.iter().filter_map(|object| dict(object).ok()).collect::<Vec<Dict>>().into()
        }
        Value::Array(list) => list.into_iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect::<Vec<String>>().into(),
        object @ Value::Object(_) => dict(&object).ok()?.into(),
    })
}

impl DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        if self.code == Code::Internal {
            tracing::error!("{}", self.message);
        }
        Message::error(call, self.name()).build(&printable(&self.to_string()).as_ref())
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
