//! SQLite: open, migrate, group-commit, recover; the table of peers.
//!
//! Promises:
//! - When [`Store::write`] answers, the change is on disk (WAL, `synchronous=FULL`: the commit is fsynced).
//! - Jobs that arrive during a commit share the next one, so durability costs one fsync per commit, not one per message.
//! - A job refuses before it writes, so a refusal undoes nothing. A job that fails after that undoes the whole transaction;
//!   savepoints would cost a busy broker a sixth of its sends, for a case that only a failing disk brings about.
//! - Migrations only append. A database from a newer version is refused and left untouched.
//!
//! Locks: one thread owns the only writing connection. Readers have connections of their own; in WAL mode they and the writer
//! never wait for each other. The file is locked for the process's life, so two brokers never share one.
//!
//! Faults: [`Store::failed`] resolves once the files are not the ones that were opened, or a statement finds damage. The broker
//! then exits and restarts, with the files that are at the path by then. Damage is repaired before that start.

mod check;
mod connect;
mod copy;
mod damage;
mod error;
#[cfg(any(fuzzing, test))]
#[allow(clippy::unwrap_used, reason = "it is a test")]
pub(crate) mod fuzz;
mod header;
mod index;
mod kind;
mod legacy;
mod lock;
mod open;
pub(crate) mod peers;
mod place;
mod readable;
mod roots;
mod salvage;
mod schema;
mod store;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
mod tx;
mod writer;

pub use check::check;
pub use error::{Error, Fault, OpenError, Result};
pub use index::{Part, best};
pub use open::{Extent, open};
pub use peers::PeerRow;
pub(crate) use rusqlite::{self as sqlite, Row, params};
pub use store::Store;
pub use tx::{Tx, View};
pub use writer::Durability;
