//! The peers and their requests: one method per verb. No HTTP, no D-Bus.
//!
//! Promises:
//! - A method that changes something answers after the commit. One place applies the effects ([`Broker::commit`]).
//! - Streams and takes read messages only from the tables, so a lost or duplicate wake-up does no harm.
//! - Counts are read from the tables when they are shown. Presence is derived on request and never stored.
//!
//! Locks: one mutex over the peers in memory ([`roster::Roster`]), held for microseconds. It is never held across an await, a
//! call to the store, or a read of the disk or the process table. The writing thread never takes it.

mod acknowledge;
mod activities;
mod attended;
mod changes;
mod commit;
mod containers;
mod core;
mod doorbell;
mod errors;
mod everyone;
mod gateway;
mod history;
mod hook;
mod identity;
mod inbox;
mod legacy;
mod limits;
mod look_for_users;
mod machine;
mod machines;
mod mail;
mod maintenance;
mod metrics;
mod names;
#[cfg(any(feature = "dbus", target_os = "macos"))]
mod notifications;
mod peer;
mod peers;
mod presence;
mod probe;
mod register;
mod release;
mod reply;
mod repositories;
mod roster;
mod scene;
mod scrape;
mod search;
mod send;
mod status;
mod stream;
mod summary;
mod take;
mod take_inbox;
mod unregister;
mod wait;
mod watch;
mod whoami;

pub use crate::mailbox::MessageChange;
pub use core::{Broker, Caller};
pub use hook::HookOf;
pub use legacy::LegacyRegister;
pub use limits::Limits;
#[cfg(any(feature = "dbus", target_os = "macos"))]
pub use notifications::{Notification, Notifications, Subject};
pub use register::Origin;
pub use scene::Scene;
pub use stream::Stream;
pub use watch::{News, Watch};
