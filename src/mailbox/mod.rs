//! The life of a message.
//!
//! ```text
//! accept ──▶ lease ──▶ acknowledge ──▶ (a reply or a hook confirms) ──▶ history
//!    │ held: release        └ not shown: waits again
//!    └ expire
//! ```
//!
//! Each step is a function of a [`Transaction`], which collects the [`Effects`] that the broker applies after the commit.
//!
//! A message to another machine is forwarded instead of leased ([`gateway`]).
//!
//! Invariants:
//! - A message has at most one holder at a time ([`Holder`]).
//! - `handed` counts how often a message may have been shown. It is incremented *before* each showing, so even after a crash a
//!   repeat is recognised as one.
//! - A message leaves `waiting` only when it was delivered, has expired, or was pushed by a route that has proved itself.
//! - Fresh messages go out in order ([`order`]).

pub(crate) mod accept;
pub(crate) mod acknowledge;
mod error;
pub(crate) mod expire;
pub(crate) mod gateway;
pub(crate) mod history;
mod holder;
pub(crate) mod lease;
mod link;
mod message;
#[cfg(test)]
mod model;
mod order;
pub(crate) mod poll;
pub(crate) mod proof;
pub(crate) mod release;
pub(crate) mod search;
pub(crate) mod serve;
mod transaction;

pub use error::{Error, Refusal, Result};
pub use holder::Holder;
pub use message::Message;
pub use transaction::{Effects, InboxNews, MessageChange, Transaction};
