//! End-to-end tests: the real programs on real sockets with a real database, as a user or a client sees them.
//!
//! There is one binary with one module per subject. Tests wait for events (`READY=1`, a line of JSON, the end of a process)
//! instead of sleeping; timeouts only make a broken build fail instead of hang. A failing test prints the broker's log.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod access;
mod asking;
mod browser;
#[cfg(all(feature = "dbus", target_os = "linux"))]
mod bus;
mod chaos;
mod cli;
mod clients;
#[cfg(target_os = "linux")]
mod containers;
mod crash;
mod crowds;
mod database;
mod delivery;
#[cfg(all(feature = "dbus", target_os = "linux"))]
mod desktop;
mod doctor;
mod documented;
mod environment;
mod everyone;
mod exporting;
#[cfg(target_os = "linux")]
mod gateway;
mod handshake;
mod hidden;
mod hostile;
mod identity;
mod idle;
mod inbox;
mod inside;
mod journal;
mod legacy;
mod link;
mod mail;
mod manual;
mod metrics;
mod patterns;
#[cfg(target_os = "linux")]
mod pkg;
mod prompt;
mod protocol;
mod reference_database;
mod refusals;
mod repositories;
mod scopes;
mod searching;
mod secrets;
mod service;
mod setup;
mod smoke;
mod soak;
mod summary;
mod support;
mod tab;
mod tools;
mod update;
mod watching;
