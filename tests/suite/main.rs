//! The real programs on real sockets with a real database: what a user or a client would see.
//!
//! One binary, a module a subject. Readiness is an event (`READY=1`, a line of JSON, the end of a process), never a sleep;
//! waits are bounded only so that a broken build fails instead of hanging; a failing test prints the broker's log.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod access;
mod asking;
#[cfg(all(feature = "dbus", target_os = "linux"))]
mod bus;
mod cli;
mod crash;
mod crowds;
mod delivery;
mod doctor;
mod documented;
mod everyone;
mod handshake;
mod hostile;
mod identity;
mod idle;
mod inbox;
mod inside;
mod legacy;
mod manual;
mod patterns;
#[cfg(target_os = "linux")]
mod pkg;
mod protocol;
mod reference_database;
mod scopes;
mod secrets;
mod service;
mod setup;
mod smoke;
mod summary;
mod support;
mod tools;
mod update;
