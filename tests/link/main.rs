//! `claude-peers-link` between real brokers and a real `nats-server` with JetStream, each machine in a folder of its own.
//!
//! Without `nats-server` (Debian: `apt install nats-server`) the tests are skipped with a message, unless
//! `CLAUDE_PEERS_HOST_TESTS=required`.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod admin;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod cluster;
mod forged;
mod hostile;
#[cfg(target_os = "linux")]
mod hosts;
mod hub;
mod invitations;
mod keys;
mod kills;
mod mail;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod nodes;
mod organisation;
mod refused;
#[path = "../suite/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the other tests")]
mod support;
#[cfg(target_os = "linux")]
mod traffic;
mod world;
