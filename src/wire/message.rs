use super::{
    MessageId, PeerId, Timestamp,
    define::{object, words},
};

words! {
    /// Where a message stands: `queued → offered → delivered`, with `forwarded` after `queued` on the way to another machine, or `held` by the recipient's controls, or `expired`.
    pub enum MessageState {
        /// Committed to disk; not yet handed to the recipient.
        Queued = "queued",
        /// Stored on its way to another machine, which has reported nothing yet.
        Forwarded = "forwarded",
        /// Pushed by a route that cannot prove that the model saw it.
        Offered = "offered",
        /// Held by the controls of the recipient's user until they let it in.
        Held = "held",
        /// Handed to the model by a certain route, let in by its client, or confirmed by the recipient's reply.
        Delivered = "delivered",
        /// Not delivered in time; it will not be handed over.
        Expired = "expired",
    }

    /// How a message reaches a session.
    pub enum Route {
        /// Written into the inbox socket of the session's client; reaches an idle session. Its prompt hook proves it.
        Inbox = "inbox",
        /// Handed over by a hook, as versions before 0.2 did. Found in old history only.
        Hook = "hook",
        /// A `notifications/claude/channel` push; reaches an idle session, but nothing confirms it.
        Channel = "channel",
        ToolResult = "tool_result",
        CheckMessages = "check_messages",
        /// The recipient's reply named it, so it has been read.
        Reply = "reply",
        Poll = "poll",
        /// Not pushed: the session gets its mail when it next calls a tool.
        Pull = "pull",
        /// Taken to another machine by the link.
        Link = "link",
    }

    /// What a client did with a message it took or was pushed.
    pub enum Outcome {
        /// Written into the inbox or the channel, which confirms nothing by itself.
        Offered = "offered",
        /// Too long for the route: only its first lines and its id were handed over; `check_messages` gives the text.
        Announced = "announced",
        /// The whole text was handed to the model by a certain route.
        Delivered = "delivered",
        /// Not handed over at all; it waits again as if never taken.
        Released = "released",
    }

    /// Why a message is held: the two sessions' modes, or the recipient's setting `crossSessionInbound`.
    pub enum HeldBy {
        /// One of the two sessions bypasses permission prompts, and the other does not.
        Mode = "mode",
        Hold = "hold",
        Refuse = "refuse",
    }
}

object! {
    /// Who sent a message, as the recipient is told.
    pub struct Sender {
        /// The sender's id; `cli` for the command line, `broker` for the broker itself.
        pub id: PeerId,
        pub name: String,
        /// The sender's working directory; empty where it has none.
        #[serde(default)]
        pub cwd: String,
        #[serde(default)]
        pub summary: String,
        /// The container that it runs in; its directory is then one inside.
        pub container: Option<String>,
    }

    /// A message as it is handed to its recipient.
    pub struct Inbound {
        pub id: MessageId,
        pub from: Sender,
        pub text: String,
        pub sent_at: Timestamp,
        pub reply_to: Option<MessageId>,
        /// The session may have been shown this message before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pub repeat: bool,
    }

    pub struct Held {
        pub at: Timestamp,
        pub by: HeldBy,
    }

    /// The known state of a message, without its text: the answer to a send, and later states.
    pub struct Receipt {
        pub message_id: MessageId,
        pub from: PeerId,
        pub to: PeerId,
        pub to_name: String,
        pub state: MessageState,
        /// The route by which it was offered or delivered.
        pub route: Option<Route>,
        pub sent_at: Timestamp,
        /// When it was stored on its way to another machine.
        pub forwarded_at: Option<Timestamp>,
        /// When it was pushed by a route that proves nothing.
        pub offered_at: Option<Timestamp>,
        pub delivered_at: Option<Timestamp>,
        /// Since when it is held, and the reason.
        pub held: Option<Held>,
        pub expired_at: Option<Timestamp>,
        /// Until when an undelivered message is kept for its recipient.
        pub expires_at: Timestamp,
        pub reply_to: Option<MessageId>,
        /// Why the recipient will not see it at once, in plain words.
        pub warning: Option<String>,
    }

    /// A message with its receipt, as `history` shows it.
    pub struct HistoryEntry {
        /// The sender's name, where it is still known, else its id.
        pub from_name: String,
        pub text: String,
        #[serde(flatten)]
        pub receipt: Receipt,
    }
}
