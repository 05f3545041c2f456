use super::{
    Agent, DeliveryChoice, Door, Error, Git, HistoryEntry, Inbound, InboundRule, LinkedMachine, MessageId, MessageState, Outcome,
    Peer, PeerId, Process, Receipt, Route, Status, SummarySource, Timestamp, define::object,
};
use serde::{Deserialize, Serialize};

object! {
    /// `GET /v1/hello`: the program that answers, and the protocol versions that it supports.
    pub struct Hello {
        /// Always `claude-peersd`.
        pub server: String,
        pub version: String,
        pub api: u32,
        pub api_min: u32,
        pub pid: u32,
    }

    pub struct ClientInfo {
        pub name: String,
        pub version: String,
    }

    /// `POST /v1/register`: registers a session. With a peer's secret as bearer token, the session is that peer again.
    pub struct Register {
        pub client: ClientInfo,
        /// A random text of at most 128 visible ASCII characters that names this process for its life.
        pub instance: String,
        /// The session's id as its client gives it (`CLAUDE_CODE_SESSION_ID`).
        pub session_id: Option<String>,
        /// A process that is registered already serves this session from now on. If the session's peer is gone, the process becomes that
        /// peer, with its own waiting mail.
        #[serde(default)]
        pub adopts: bool,
        pub pid: u32,
        /// The agent process that runs this session; none if unknown.
        pub host: Option<Process>,
        /// The working directory, absolute.
        pub cwd: String,
        pub git: Option<Git>,
        pub tty: Option<String>,
        /// The start flags of the session name this server as a channel.
        #[serde(default)]
        pub channel: bool,
        #[serde(default)]
        pub delivery: DeliveryChoice,
        /// The absolute path of the inbox socket of the session's client.
        pub inbox: Option<String>,
        /// The token that the session's client passes to its child processes (`CLAUDE_CODE_MESSAGING_TOKEN`). Its hook presents
        /// it.
        pub hook_token: Option<String>,
        /// The client's prompt hook runs for every message that the client lets in, also in the middle of a turn.
        #[serde(default)]
        pub hook_proves_all: bool,
        /// The start flags of the session bypass permission prompts.
        #[serde(default)]
        pub bypasses: bool,
        #[serde(default)]
        pub inbound: InboundRule,
        /// The coding agent that runs the session.
        pub agent: Option<Agent>,
        /// The open door into the session, other than `inbox`.
        pub door: Option<Door>,
        /// The absolute path of the file in which Claude Code says what the session does.
        pub status_file: Option<String>,
    }

    pub struct Registered {
        pub id: PeerId,
        pub name: String,
        /// Proves from now on that a request comes from this peer (`Authorization: Bearer …`).
        pub secret: String,
        /// Its summary, kept from before if it is a known session.
        pub summary: String,
        pub summary_source: SummarySource,
        /// The session was known before.
        pub resumed: bool,
        pub waiting: u32,
        pub broker_version: String,
        /// The container as whose session it counts.
        pub container: Option<String>,
    }

    /// `GET /v1/peers?scope=…&cwd=…`: which peers to list. A registered caller need not give `cwd` and is left out.
    #[cfg_attr(feature = "broker", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct ListPeers {
        /// `machine`, `directory`, `repo`, `everywhere` or `repo-everywhere`.
        pub scope: String,
        /// The directory from which `directory`, `repo` and `repo-everywhere` are seen; the caller's own by default.
        pub cwd: Option<String>,
    }

    pub struct Peers {
        pub peers: Vec<Peer>,
        /// The caller itself, if it is a peer.
        #[serde(rename = "self")]
        pub myself: Option<Peer>,
        /// In the scope `everywhere`: the other machines that are known, by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub machines: Vec<LinkedMachine>,
        /// If there are such: whether a link fetches the mail for them. If not, nothing is known of them now.
        pub linked: Option<bool>,
    }

    /// `POST /v1/send`: sends a message. The bearer token identifies the sender; without a token, the sender is the command line.
    pub struct SendRequest {
        /// The recipient: an id or a name; or everyone but the sender in a scope: `@machine`, `@everywhere`, `@directory`,
        /// `@repo` or `@repo-everywhere`.
        pub to: String,
        /// The text, at most 256 KiB.
        pub text: String,
        pub reply_to: Option<String>,
        /// The idempotency key, at most 128 visible ASCII characters. The same key from the same sender means the same message.
        pub key: Option<String>,
        /// The directory from which `@directory`, `@repo` and `@repo-everywhere` are seen; the caller's own by default.
        pub cwd: Option<String>,
        /// Wake the recipient even if its user has left. Otherwise a message to an unattended session waits.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub wake: bool,
    }

    /// The answer to a message to everyone in a scope: the result for each copy.
    pub struct Broadcast {
        /// The copies accepted, by the recipients' names; none if nobody is there.
        pub receipts: Vec<Receipt>,
        /// The recipients whose copies a limit refused.
        pub refused: Vec<NotSent>,
    }

    /// A copy of a message to everyone that was not accepted.
    pub struct NotSent {
        pub to: PeerId,
        pub to_name: String,
        pub error: Error,
    }

    /// `POST /v1/set-summary`
    pub struct SetSummary {
        /// The summary, at most 1,000 characters.
        pub summary: String,
        /// Who wrote it; a generated one never overrules one that the session set.
        pub source: SummarySource,
    }

    pub struct Summary {
        pub summary: String,
        pub source: SummarySource,
    }

    /// `POST /v1/take`: leases the caller's waiting messages to it. The caller acknowledges them after handing them over. A
    /// repeated request with the same lease returns the same messages.
    pub struct Take {
        /// A fresh random text of at most 128 visible ASCII characters that names this hand-over.
        pub lease: String,
        /// The route that will hand them over: `tool_result`, `check_messages` or `inbox`.
        pub route: Route,
        /// At most this many bytes of text (at least one message is always returned).
        pub max_bytes: Option<u32>,
        /// Wait up to this many seconds for a message if none is there; at most 3,600.
        pub wait_seconds: Option<u32>,
        /// For the inbox: the session is idle, so messages that were written but not let in are lost.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub idle: bool,
        /// For the inbox: which messages from other sessions are let in now.
        pub inbound: Option<InboundRule>,
    }

    /// `GET /v1/messages/ID/reply?waitSeconds=…`: the answer to a message.
    #[cfg_attr(feature = "broker", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct AwaitReply {
        /// Wait up to this many seconds for it if there is none; at most 3,600.
        pub wait_seconds: Option<u32>,
    }

    /// The known state of a question.
    pub struct Asked {
        /// The question, as it stands; its `warning` says why the recipient has not seen it.
        pub question: Receipt,
        /// Whether its recipient can be reached now.
        pub recipient: Status,
        /// The answer: the first message of the recipient that names the question.
        pub answer: Option<HistoryEntry>,
    }

    /// `GET /v1/peers/ID/mail?after=…&waitSeconds=…`: whether mail waits for a peer. For a session that asks about itself, mail counts once.
    #[cfg_attr(feature = "broker", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct AwaitMail {
        /// Mail counts only when no message up to this one waits any more.
        pub after: Option<String>,
        /// Wait up to this many seconds for mail if there is none; at most 3,600.
        pub wait_seconds: Option<u32>,
    }

    /// The mail that waits for a peer and is not held.
    pub struct Mail {
        pub peer: Peer,
        /// The newest message, if there is any mail that counts.
        pub newest: Option<MessageId>,
    }

    pub struct Taken {
        pub messages: Vec<Inbound>,
        pub more: u32,
        /// For the inbox: messages were written into it and are not known to be let in.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub pending: bool,
        /// For the inbox: the senders whose messages the broker has written there, to be held. Listen for answers to them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub held: Vec<PeerId>,
    }

    /// `POST /v1/hook`: the prompt hook of a session's client runs. Makes no peer.
    pub struct Hook {
        /// The hook's event, as its client names it: `UserPromptSubmit`.
        pub event: String,
        /// Why the hook can do nothing: for the broker's log.
        pub problem: Option<String>,
        /// The session's id as its client gives it. If no peer has the id, this peer gets it. If the id belongs to another peer
        /// that is gone, the process becomes that peer.
        pub session_id: Option<String>,
        pub cwd: Option<String>,
        /// The session's permission mode, as its client names it: `default`, `bypassPermissions` …
        pub permission_mode: Option<String>,
        /// The messages in the prompt, which were let in.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub messages: Vec<MessageId>,
        /// The session can show no more than `messages` of what its hooks have taken: the rest waits again, as possible repeats.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub is_complete: bool,
    }

    pub struct Hooked {
        /// A doorbell tells the session that mail waits.
        #[serde(default)]
        pub has_doorbell: bool,
    }

    pub struct Acknowledgement {
        pub id: MessageId,
        pub outcome: Outcome,
        /// The lease under which the message was taken, so that a repeated request ends no later lease.
        pub lease: Option<String>,
    }

    /// `POST /v1/acknowledge`: reports the outcome of messages taken or pushed. Repeating it changes nothing.
    pub struct Acknowledge {
        pub route: Route,
        pub messages: Vec<Acknowledgement>,
    }

    pub struct Acknowledged {
        /// How many messages changed their state.
        pub changed: u32,
    }

    /// `GET /v1/history?peer=…&limit=…`: messages, newest first.
    #[cfg_attr(feature = "broker", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct History {
        /// Only messages from or to this peer (id or name).
        pub peer: Option<String>,
        /// Only messages to this peer (id or name; `cli` is the command line).
        pub to: Option<String>,
        /// At most this many, 1 to 1,000; 50 by default. A page ends earlier if it has a mebibyte of text.
        pub limit: Option<u32>,
        /// Only messages older than this message id.
        pub before: Option<String>,
        /// Only messages after this message id (`0` for all), the oldest first.
        pub after: Option<String>,
        /// Only messages sent at this time or later.
        pub since: Option<Timestamp>,
        /// Only messages sent before this time.
        pub until: Option<Timestamp>,
        pub state: Option<MessageState>,
        /// Only the conversation of this message: what it answers, directly or not, and all answers to that.
        pub thread: Option<String>,
    }

    pub struct HistoryPage {
        pub messages: Vec<HistoryEntry>,
        /// Pass this as `before`, or as `after` if that was given, to read on; none at the end.
        pub next: Option<MessageId>,
    }

    /// `GET /v1/search?words=…`: messages by their words, best first.
    #[cfg_attr(feature = "broker", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct Search {
        /// Words that must all occur, in any case and order; `"a phrase"`; `begin*` for a beginning.
        pub words: String,
        /// Only messages from or to this peer (id or name).
        pub peer: Option<String>,
        /// Only messages from or to a peer in a repository of this name.
        pub repo: Option<String>,
        /// Only messages sent at this time or later.
        pub since: Option<Timestamp>,
        /// Only messages sent before this time.
        pub before: Option<Timestamp>,
        pub state: Option<MessageState>,
        /// At most this many, 1 to 200; 20 by default.
        pub limit: Option<u32>,
    }

    pub struct SearchPage {
        pub messages: Vec<Found>,
    }

    /// A message that was found.
    pub struct Found {
        /// The part of the text around the matches.
        pub excerpt: Vec<Excerpt>,
        #[serde(flatten)]
        pub entry: HistoryEntry,
    }

    pub struct Excerpt {
        pub text: String,
        /// Whether it matches.
        pub hit: bool,
    }

    /// `GET /v1/whoami?sessionId=…&pids=…`: the peer that a process belongs to. A bearer token takes precedence over both.
    #[cfg_attr(feature = "broker", derive(utoipa::IntoParams), into_params(parameter_in = Query))]
    pub struct WhoAmI {
        /// The session's id (`CLAUDE_CODE_SESSION_ID`).
        pub session_id: Option<String>,
        /// The process ids of the caller's ancestors, nearest first, separated by commas.
        pub pids: Option<String>,
    }

    pub struct Done {
        /// Always true.
        pub ok: bool,
    }

    /// A socket the broker was to listen on.
    pub struct ListenerStatus {
        /// `unix` or `tcp`.
        pub kind: String,
        pub address: String,
        pub listening: bool,
        /// `service manager` if it was handed over, `own` if the broker bound it.
        pub origin: String,
        /// Why it is not served, and who holds it.
        pub problem: Option<String>,
    }

    pub struct DatabaseStatus {
        pub path: String,
        /// Its size in bytes, side files included.
        pub bytes: u64,
        pub waiting: u64,
        pub messages: u64,
    }

    /// `GET /v1/status`: the broker's state.
    pub struct BrokerStatus {
        pub version: String,
        pub api: u32,
        pub pid: u32,
        pub started_at: Timestamp,
        /// How many peers are connected or reconnecting.
        pub peers: u32,
        pub listeners: Vec<ListenerStatus>,
        pub database: DatabaseStatus,
        /// Notices for people: a damaged database set aside, a port that another program holds.
        pub notices: Vec<String>,
    }
}

impl Taken {
    pub fn of(messages: Vec<Inbound>, more: u32) -> Self {
        Self { messages, more, pending: false, held: Vec::new() }
    }
}

/// The answer to `POST /v1/send`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "the larger variant is the usual one")]
pub enum Sent {
    One(Receipt),
    Everyone(Broadcast),
}

/// An event of the stream `GET /v1/events`: the SSE event's name, with the JSON of its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// A message to push into the channel now; acknowledge it as `offered` once it is written.
    Message(Box<Inbound>),
    /// Messages wait and nothing pushes them: take them with the next tool call.
    Waiting,
    /// Another process has registered as this session: this one stands by, and the stream stays open.
    Displaced,
    /// The session has ended and its process is about to exit, or the process that displaced this one has ended.
    Ended,
}

/// An event of the stream `GET /v1/watch`, for people: the SSE event's name, with the JSON of its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum WatchEvent {
    /// A live peer: at the beginning each, later those that come or change.
    Peer(Peer),
    /// The peers so far are all there are; from now on changes are told.
    Ready,
    /// This peer is gone.
    Left(PeerId),
    /// A message was accepted, or its state has changed.
    Message(HistoryEntry),
    /// So many changes of messages came too fast and are left out.
    Missed(u64),
}
