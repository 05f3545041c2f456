//! The daemon's edges: sockets, access, routes, the event stream, the session bus, the service manager, the log.
//!
//! Promises: it reports itself ready only when it answers requests; after a SIGTERM it finishes what it has accepted and ends
//! within five seconds; every connection, wait and body is bounded, so that a bad client costs only itself.

mod access;
mod answers;
mod app;
mod body;
#[cfg(all(feature = "dbus", target_os = "linux"))]
mod bus;
mod caller;
mod config;
mod connections;
mod containers;
mod daemon;
#[cfg(any(all(feature = "dbus", target_os = "linux"), target_os = "macos"))]
mod desktop;
mod errors;
mod events;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod idle;
mod legacy;
mod listen;
mod log;
#[cfg(any(target_os = "macos", all(test, feature = "dbus", target_os = "linux")))]
mod mac;
mod metrics;
mod notify;
mod refusals;
mod router;
mod v1;

pub use daemon::main;
