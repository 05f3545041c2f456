//! claude-peers: the coding-agent sessions on a machine find each other and talk.
//!
//! # The map of the house
//!
//! ```text
//! bin/        claude-peers (CLI)  claude-peersd (broker)  claude-peers-mcp (MCP server): thin
//! wire/       domain types and the protocol: serde only, no I/O
//! platform/   what the operating system tells: paths, settings, processes, sockets' owners, git; running other programs
//! client/     connect over the Unix socket, exchange versions, call a verb
//! db/         SQLite: open, migrate, group commit, damage; the table of peers
//! mailbox/    the life of a message: accept, lease, acknowledge, hold, expire
//! broker/     the rules, no HTTP: one method per verb; delivery, presence, limits, sweep
//! serve/      the daemon's edges: listeners, access, routes, handlers, event stream, D-Bus, sd_notify, logs
//! agents/     one folder per coding agent: where it keeps things, its hook, its sessions' inbox
//! session/    the MCP server of one session: four tools, the writer into the inbox, the channel, the session's facts
//! console/    output as text or JSON, failures, exit codes
//! cli/        what people do: status, peers, send, ask, history …: one file per command
//! admin/      what keeps it running: setup, doctor, update, stop, service managers
//! ```
//!
//! Which room may use which:
//!
//! ```text
//! wire →
//! platform → wire
//! db → platform wire
//! mailbox → db platform wire
//! agents → platform wire
//! broker → mailbox db agents platform wire
//! serve → broker db platform wire
//! client → platform wire
//! console → client platform wire
//! session → client agents platform wire
//! admin → console client agents platform wire
//! cli → admin console client agents platform wire
//! ```
//!
//! SQL stands in `db` and `mailbox` alone, HTTP statuses in `serve` and `client` alone. Files use each other in one direction
//! only. `tests/layering` reads this table and checks all of it.
//!
//! # A message's one path
//!
//! A tool call or a command → `client` → `serve` (access, route, handler) → `broker::send` (limits, rules) → `mailbox` (group
//! commit, one fsync for all who wait) → the recipient's MCP server, which waits in `broker::door`, takes it under a lease → writes it
//! into its client's inbox and acknowledges it as *offered* → the client's prompt hook, or a reply, makes it *delivered*. A wake-up is only
//! a hint: what is not read now is read later.

// With all roles nothing may be dead; one alone uses a part of what they share.
#![cfg_attr(not(all(feature = "broker", feature = "mcp", feature = "cli")), allow(dead_code, unused_imports))]

mod agents;
mod platform;
mod wire;

#[cfg(feature = "cli")]
mod admin;
#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "cli")]
mod console;
#[cfg(feature = "broker")]
mod db;
#[cfg(feature = "broker")]
mod mailbox;
#[cfg(feature = "broker")]
pub mod serve;
#[cfg(feature = "mcp")]
pub mod session;

#[cfg(feature = "cli")]
pub use agents::claude::prompt_hook;
