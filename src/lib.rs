//! claude-peers: the coding-agent sessions on a machine find each other and talk.
//!
//! # The rooms
//!
//! ```text
//! bin/        claude-peers (CLI)  claude-peersd (broker)  claude-peers-mcp (MCP server)  claude-peers-link: thin
//! wire/       domain types and the protocol: serde only, no clock, no randomness, no I/O
//! platform/   facts from the operating system: processes, socket owners, paths, settings, git, time; runs other programs
//! client/     connect over the Unix socket, exchange versions, call a verb
//! db/         SQLite: open, migrate, group commit, damage; the table of peers
//! mailbox/    the life of a message: accept, lease, acknowledge, release, expire
//! broker/     who is there: roster, names, presence, limits; one method per verb, no HTTP
//! serve/      the daemon's edges: listeners, access, routes, event stream, D-Bus, service manager, logs
//! agents/     coding agents: a table of those that setup knows, one of MCP clients; a folder per agent: its hook, its sessions' inbox
//! session/    the MCP server of one session: tools, door, summary
//! link/       links the brokers of several machines, over NATS
//! console/    output as text or JSON, failures, exit codes
//! cli/        what people do: status, peers, send, ask, history …: one file per command
//! admin/      what keeps it running: setup, doctor, update, stop, service managers
//! fuzz.rs     what must hold for any bytes; only in fuzzing
//! ```
//!
//! Which room may use which:
//!
//! ```text
//! wire →
//! platform → wire
//! db → platform wire
//! mailbox → db wire
//! agents → platform wire
//! broker → mailbox db agents platform wire
//! serve → broker db platform wire
//! client → platform wire
//! console → client platform wire
//! session → client agents platform wire
//! link → client platform wire
//! admin → console client agents platform wire
//! cli → admin console client agents platform wire
//! fuzz → session serve db agents wire
//! ```
//!
//! SQL stands in `db` and `mailbox` alone, HTTP statuses in `serve` and `client` alone. Files use each other in one direction
//! only. `tests/layering` reads this table and checks all of it.
//!
//! # A message's one path
//!
//! A tool call or a command → `client` → `serve` (access, route, handler) → `broker` (who, limits) → `mailbox` (one transaction, one
//! fsync for all who wait) → `broker` (wake, count, tell) → receipt. The recipient's MCP server waits in the broker, takes the message
//! under a lease, writes it into its client's inbox and acknowledges it as *offered*; the client's prompt hook, or a reply, makes it
//! *delivered*. A wake-up is only a hint: the message waits in the database until it is acknowledged.
//!
//! # Glossary
//!
//! - **peer**: a session that has registered; it has an id, a name, a secret and a mailbox.
//! - **agent process**: the process of the coding agent that runs a session, such as `claude`.
//! - **legacy client**: a client of [`louislva/claude-peers-mcp`](https://github.com/louislva/claude-peers-mcp).
//! - **roster**: the peers that the broker has in memory. **Presence**: whether a peer is connected, reconnecting or gone.
//! - **route**: how a message reaches a session: inbox, channel, tool result, `check_messages`, reply, poll, pull.
//! - **container**: a container in which one of the broker's sockets is mounted; every client of that socket is a session of that container.
//! - **door**: how a text gets into a running session of one kind of agent.
//! - **machine**: another machine of the user's, whose broker is linked with this one. **gateway**: a program that speaks for the peers of
//!   other machines, as `claude-peers-link` does. **hub**: the NATS server between the machines.
//! - **lease**: the right to hand a message over, which one **holder** has at a time.
//! - **acknowledge**: to report what happened to a leased message: offered, announced, delivered, released (given back).
//! - **receipt**: the sender's record of a message: its state, its route, its times.
//! - **run to completion**: to finish a request that changes something, even if its client has gone.
//! - **maintenance**: the broker's periodic work: expire messages, forget peers, prune history.

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
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(feature = "link")]
pub mod link;
#[cfg(feature = "broker")]
mod mailbox;
#[cfg(feature = "broker")]
pub mod serve;
#[cfg(feature = "mcp")]
pub mod session;

#[cfg(feature = "cli")]
pub use agents::claude::prompt_hook;
// `tests/power` opens more databases than there is time for processes.
#[cfg(feature = "broker")]
#[doc(hidden)]
pub use db::{Extent, open as open_database};
