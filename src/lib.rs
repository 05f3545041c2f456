//! claude-peers: the coding-agent sessions on a machine find each other and talk.
//!
//! # The map of the house
//!
//! ```text
//! bin/          claude-peers (CLI)  claude-peersd (broker)  claude-peers-mcp (MCP server): thin
//! settings      reading the environment, with errors that name variable, value and what is allowed
//! paths         where the socket, the database and the token live
//! git, process  facts about a directory and about a process, read from the system's files
//! kernel        facts about TCP connections, read from the kernel's tables
//! wire/         domain types and the protocol: serde only, no I/O
//! client/       connect over the Unix socket, exchange versions, call a verb
//! shown         messages as a model reads them
//! inbox         the inbox socket of a session's client: who listens there, and the frames that are written into it
//! mcp/          the MCP server: four tools, the writer into the inbox, the channel, the session's facts
//! cli/          the command line: one file per command
//! hook/         what Claude Code's prompt hook runs: small, quick, silent
//! store/        the only place with SQL: migrations, messages, peers, group commit
//! broker/       the rules, no HTTP: one method per verb; delivery, presence, limits, sweep
//! serve/        the daemon's edges: listeners, access, routes, handlers, event stream, D-Bus, sd_notify, logs
//! ```
//!
//! Who may import whom: `settings`, `kernel`, `wire` import nobody; `paths`, `git`, `process` those two; `store` → `wire`; `shown` →
//! `wire`; `inbox` → `shown`, `wire`; `broker` → `store`, `inbox`, `shown`, `wire`, `git`, `process`, `paths`; `serve` → `broker`, all
//! leaves, and `store` to open it; `client` → `wire`, `paths`; `hook` → the leaves; `mcp` and `cli` → `client`, `shown` and the leaves,
//! `mcp` → `inbox`, `cli` → `hook`. Never `broker` → `serve`, never `mcp`/`cli` → `broker`/`store`/`serve`; no SQL outside `store`, no
//! HTTP status outside `serve` but where `client` reads it. `.ci/layering` and a build per feature check this.
//!
//! # A message's one path
//!
//! A tool call or a command → `client` → `serve` (access, route, handler) → `broker::send` (limits, rules) → `store` (group
//! commit, one fsync for all who wait) → the recipient's MCP server, which waits in `broker::door`, takes it under a lease → writes it
//! into its client's inbox and settles it as *offered* → the client's prompt hook, or a reply, makes it *delivered*. A wake-up is only
//! a hint: what is not read now is read later.

// With all roles nothing may be dead; one alone uses a part of what they share.
#![cfg_attr(not(all(feature = "broker", feature = "mcp", feature = "cli")), allow(dead_code, unused_imports))]

mod git;
mod kernel;
mod paths;
mod process;
mod settings;
pub mod wire;

#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "cli")]
pub mod hook;
#[cfg(any(feature = "broker", feature = "mcp"))]
mod inbox;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "broker")]
pub mod serve;
#[cfg(any(feature = "broker", feature = "cli", feature = "mcp"))]
mod shown;
#[cfg(feature = "broker")]
pub mod store;
