//! Errors of the link itself. Those of the broker pass as they are.

use crate::wire::{Code, Error};

/// The error of something on this machine.
pub(super) fn local(what: &str, error: &std::io::Error) -> Error {
    Error::new(Code::Internal, format!("{what}: {error}"))
}
