//! The domain's types, and the protocol's requests and answers between the programs.
//!
//! Promises: serde only; no I/O, no clock, no randomness, no global state; a value that exists is valid (ids and references are
//! parsed, not merely wrapped). Field names on the wire are `camelCase`; unknown fields are ignored, so that a newer client can
//! talk to an older broker and the other way round within one [`API`] version.

mod container;
mod database;
mod define;
mod error;
mod exit;
mod id;
mod machine;
mod message;
mod peer;
mod recipient;
mod request;
mod summary;
pub mod text;
mod time;

pub use container::{Container, ContainerName, Containers};
pub use database::{DatabaseReport, DatabaseState};
pub use error::{Code, Error, Result, echo};
pub use exit::BrokerExit;
pub use id::{MessageId, MessageRef, PeerId, PeerRef};
pub use machine::{
    Announce, AnnouncedPeer, Confirm, Forwarded, LinkedMachine, MachineName, Outgoing, OutgoingMessage, OutgoingReceipt, Present,
    Receive, Received, RemoteMessage, RemotePeer, RemoteReceipt, RepositoryName, TakeOutgoing, Told, UNLINKED,
};
pub use message::{Held, HeldBy, HistoryEntry, Inbound, MessageState, Outcome, Receipt, Route, Sender};
pub use peer::{Activity, Agent, DeliveryChoice, Doing, Door, Git, InboundRule, Peer, Process, Scope, Status, SummarySource};
pub use recipient::Recipient;
pub use request::{
    Acknowledge, Acknowledged, Acknowledgement, Asked, AwaitMail, AwaitReply, Broadcast, BrokerStatus, ClientInfo,
    DatabaseStatus, Done, Event, Excerpt, Found, Hello, History, HistoryPage, Hook, Hooked, ListPeers, ListenerStatus, Mail,
    NotSent, Peers, Register, Registered, Search, SearchPage, SendRequest, Sent, SetSummary, Summary, Take, Taken, WatchEvent,
    WhoAmI,
};
pub use summary::{MAX_SUMMARY, SummaryFacts};
pub use time::Timestamp;

/// The version of the `/v1` protocol this build speaks.
pub const API: u32 = 1;
/// The oldest version of the protocol this build can serve or use.
pub const API_MIN: u32 = 1;
/// The version of this package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The header in which client and broker name the protocol version they speak, on every request and answer.
pub const API_HEADER: &str = "claude-peers-api";
/// The header that carries the machine token where the kernel cannot tell who is connecting over TCP.
pub const TOKEN_HEADER: &str = "claude-peers-token";
/// The names of leases begin so where a session's hook takes messages.
pub const HOOK_LEASE: &str = "hook-";
/// The scheme of `Authorization` by which a hook names the process that runs its session, in place of a secret.
pub const PROCESS_SCHEME: &str = "Process";
/// The scheme of `Authorization` by which a hook shows the token that its client gives to the programs it starts. The token proves
/// that the session started the hook, even after the hook has ended.
pub const SESSION_SCHEME: &str = "Session";
/// The sender id of messages sent by a person or script through the CLI.
pub const CLI_SENDER: &str = "cli";
/// The sender id of notices that the broker itself writes (such as: a message that you sent has expired).
pub const BROKER_SENDER: &str = "broker";
