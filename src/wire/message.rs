use super::{MessageId, PeerId, Timestamp};
use serde::{Deserialize, Serialize};

/// Where a message stands: `queued → offered → delivered`, or `held` by the recipient's controls, or `expired`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// Committed to disk; not yet handed to the recipient.
    Queued,
    /// Pushed by a route that cannot prove that the model saw it.
    Offered,
    /// Kept back by the controls of the recipient's user, until they let it in.
    Held,
    /// Handed to the model by a certain route, let in by its client, or confirmed by the recipient's reply.
    Delivered,
    /// Not delivered in time; it will not be handed over any more.
    Expired,
}

/// How a message reaches a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Written into the inbox socket of the session's client; reaches an idle session. Its prompt hook proves it.
    Inbox,
    /// Handed over by a hook, as versions before 0.2 did. Found in old history only.
    Hook,
    /// A `notifications/claude/channel` push; reaches an idle session, but nothing confirms it.
    Channel,
    /// It stands beside the result of any of our tools.
    ToolResult,
    /// The result of `check_messages`.
    CheckMessages,
    /// The recipient's reply named it: it had been read.
    Reply,
    /// Fetched by a session of the reference system through `/poll-messages`.
    Poll,
    /// Nothing pushes; the session gets its mail when it next calls a tool.
    Pull,
}

impl MessageState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Offered => "offered",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Expired => "expired",
        }
    }
}

impl Route {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Hook => "hook",
            Self::Channel => "channel",
            Self::ToolResult => "tool_result",
            Self::CheckMessages => "check_messages",
            Self::Reply => "reply",
            Self::Poll => "poll",
            Self::Pull => "pull",
        }
    }

    /// The route with this name on the wire.
    pub fn parse(name: &str) -> Option<Self> {
        use Route::{Channel, CheckMessages, Hook, Inbox, Poll, Pull, Reply, ToolResult};
        [Inbox, Hook, Channel, ToolResult, CheckMessages, Reply, Poll, Pull].into_iter().find(|route| route.as_str() == name)
    }
}

impl std::fmt::Display for MessageState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who sent a message, as the recipient is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(as = Sender))]
pub struct Sender {
    /// The sender's id; `cli` for the command line, `broker` for the broker itself.
    pub id: PeerId,
    /// The sender's readable name.
    pub name: String,
    /// The sender's working directory; empty where it has none.
    #[serde(default)]
    pub cwd: String,
    /// What the sender says it is working on.
    #[serde(default)]
    pub summary: String,
}

/// A message as it is handed to its recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Inbound {
    /// The message's id.
    pub id: MessageId,
    /// Who sent it.
    pub from: Sender,
    /// The text, as sent.
    pub text: String,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// The message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// The session may have been shown this message before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeat: bool,
}

/// What a client did with a message it took or was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Written into the inbox or the channel, which confirms nothing by itself.
    Offered,
    /// Too long for the route: only its first lines and its id were handed over; `check_messages` gives the text.
    Announced,
    /// The whole text was handed to the model by a certain route.
    Delivered,
    /// Not handed over at all; it waits again as if never taken.
    Released,
}

/// Why a message is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HeldBy {
    /// One of the two sessions bypasses permission prompts, and the other does not.
    Mode,
    /// The recipient's setting `crossSessionInbound` is `hold`.
    Hold,
    /// The recipient's setting `crossSessionInbound` is `refuse`.
    Refuse,
}

/// Since when a message is held, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Since when.
    pub at: Timestamp,
    /// Why.
    pub by: HeldBy,
}

/// What is known of a message, without its text: the answer to a send, and to the question what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The message's id.
    pub message_id: MessageId,
    /// The sender's id.
    pub from: PeerId,
    /// The recipient's id.
    pub to: PeerId,
    /// The recipient's name.
    pub to_name: String,
    /// Where the message stands.
    pub state: MessageState,
    /// The route by which it was offered or delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// When it was accepted and committed.
    pub sent_at: Timestamp,
    /// When it was pushed by a route that proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_at: Option<Timestamp>,
    /// When it was handed over for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// Since when it is held, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// When it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    /// Until when an undelivered message is kept for its recipient.
    pub expires_at: Timestamp,
    /// The message this one answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Why the recipient will not see it at once, in plain words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A message with its receipt, as `history` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// The sender's name, where it is still known, else its id.
    pub from_name: String,
    /// The text, as sent.
    pub text: String,
    /// Everything else.
    #[serde(flatten)]
    pub receipt: Receipt,
}
