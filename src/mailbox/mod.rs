//! The life of a message.
//!
//! ```text
//! accept ──▶ lease ──▶ acknowledge ──▶ (a reply or a hook confirms) ──▶ history
//!    │ held: release        └ not shown: waits again
//!    └ expire
//! ```
//!
//! Each step is a function of a transaction. It returns [`Effects`], which the broker applies after the commit.
//!
//! Invariants: one holder at a time hands a message over ([`Holder`]). `handed` counts how often it may have been shown,
//! *before* it is, so that after any crash a second showing is known to be one. A message leaves `waiting` only when it was
//! delivered, has expired, or was pushed by a route that has proved itself. Fresh mail goes out in order ([`order`]).

pub(crate) mod accept;
pub(crate) mod acknowledge;
mod effects;
mod error;
pub(crate) mod expire;
pub(crate) mod history;
mod holder;
pub(crate) mod lease;
mod message;
mod order;
pub(crate) mod poll;
pub(crate) mod proof;
pub(crate) mod release;

pub use effects::{Effects, InboxNews, MessageChange};
pub use error::{Error, Refusal, Result};
pub use holder::Holder;
pub use message::Message;
