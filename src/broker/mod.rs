//! The peers and their requests: one method per verb. No HTTP, no D-Bus.
//!
//! Promises: a method that changes something answers after the commit, and what it changed in the mailbox is applied here in one
//! place ([`Broker::commit`]); a recipient is always told from the tables, so that a wake-up lost or doubled changes nothing;
//! counts are read from the tables when they are shown; presence is derived when asked for, never remembered.
//!
//! Locks: one mutex over the peers in memory ([`roster::Roster`]), held for microseconds: never across an await, a call to the
//! store, a look at the disk or at the process table. The writing thread does not know it.

mod acknowledge;
mod changes;
mod commit;
mod core;
mod errors;
mod everyone;
mod history;
mod hook;
mod identity;
mod inbox;
mod legacy;
mod limits;
mod maintenance;
mod names;
mod peer;
mod peers;
mod presence;
mod probe;
mod register;
mod release;
mod reply;
mod roster;
mod send;
mod status;
mod stream;
mod summary;
mod take;
mod take_inbox;
mod unregister;
mod watch;
mod whoami;

pub use crate::mailbox::MessageChange;
pub use core::{Broker, Caller};
pub use legacy::LegacyRegister;
pub use limits::Limits;
pub use stream::{Stream, StreamItem};
pub use watch::{News, Watch};
