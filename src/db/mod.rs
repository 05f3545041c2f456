//! SQLite: open, migrate, group-commit, recover; the table of peers.
//!
//! Promises: what [`Store::write`] has answered is on disk (WAL, `synchronous=FULL`: the commit is fsynced); writers that
//! come while a commit is under way share the next one, so durability costs one fsync and not one per message; a job that
//! fails takes nothing of its neighbours with it (a savepoint each). Migrations only append; a database from a newer version
//! is refused untouched.
//!
//! Locks: one thread owns the only writing connection; readers use connections of their own and, as WAL has it, neither
//! wait for the writer nor make it wait. The file is locked for the process's life, so two brokers never share one.
//!
//! A fault ends it: once the files are not the ones that were opened, or a statement meets damage, [`Store::failed`] says so. The
//! broker ends and is started again, on what lies at the path by then, or after the damage is repaired.

mod check;
mod connect;
mod damage;
mod error;
mod legacy;
mod lock;
mod open;
pub(crate) mod peers;
mod place;
mod salvage;
mod schema;
mod store;
#[cfg(test)]
pub(crate) mod testing;
mod tx;
mod whose;
mod writer;

pub use check::check;
pub use error::{Error, Fault, OpenError, Result};
pub use open::{Extent, open};
pub use peers::PeerRow;
pub(crate) use rusqlite::{self as sqlite, Row, params};
pub use store::Store;
pub use tx::{Tx, View};
pub use writer::Durability;
