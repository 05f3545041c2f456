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
//! mcp/          the MCP server: four tools, the channel, the session's facts
//! cli/          the command line: one file per command
//! shown         messages as a model reads them
//! hook/         what Claude Code's hooks run: small, quick, silent where it can do nothing
//! store/        the only place with SQL: migrations, messages, peers, group commit
//! broker/       the rules, no HTTP: one method per verb; delivery, presence, limits, sweep
//! serve/        the daemon's edges: listeners, access, routes, handlers, event stream, D-Bus, sd_notify, logs
//! ```
//!
//! Who may import whom: `settings`, `kernel`, `wire` import nobody; `paths`, `git`, `process` those two; `store` → `wire`; `broker` →
//! `store`, `wire`, `git`, `process`; `serve` → `broker`, all leaves, and `store` to open it; `client` → `wire`, `paths`; `shown` → `wire`;
//! `hook` → `shown` and the leaves; `mcp` and `cli` → `client`, `shown` and the leaves, `cli` → `hook`. Never `broker` → `serve`, never `mcp`/`cli` → `broker`/`store`/`serve`; no SQL outside
//! `store`, no HTTP status outside `serve` but where `client` reads it. `.ci/layering` and a build per feature hold this up.
//!
//! # A message's one path
//!
//! A tool call or a command → `client` → `serve` (access, route, handler) → `broker::send` (limits, rules) → `store` (group
//! commit, one fsync for all who wait) → the recipient's event stream is woken → it reads from the store by cursor → the
//! recipient's MCP server writes the notification and settles it as *offered* → a certain route or a reply makes it
//! *delivered*. A wake-up is only a hint: what is not read now is read later.

pub mod git;
pub mod kernel;
pub mod paths;
pub mod process;
pub mod settings;
pub mod wire;

#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "cli")]
pub mod hook;
#[cfg(feature = "mcp")]
pub mod mcp;
#[cfg(feature = "broker")]
pub mod serve;
#[cfg(any(feature = "cli", feature = "mcp"))]
pub mod shown;
#[cfg(feature = "broker")]
pub mod store;
