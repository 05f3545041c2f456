//! The life of a message.

pub(crate) mod history;
pub(crate) mod holds;
pub(crate) mod leases;
pub(crate) mod messages;
pub(crate) mod outcomes;
