use super::{
    Code, Error, MessageId, MessageState, Peer, PeerId, PeerRef, Route, Timestamp,
    define::{object, texts},
    error::echo,
    id::is_made_of,
};

/// What people and sessions are told when no gateway is at work.
pub const UNLINKED: &str =
    "Nothing is known of other machines now: claude-peers-link does not run here, or does not reach its hub";
/// Stands between a peer's id on its own machine and the machine's name. No machine's name has it.
const SEPARATOR: char = '_';

texts! {
    /// The name of another machine: 1 to 32 of `a-z 0-9 -`, the first a letter or a digit. It fits into the ids and names of its peers.
    pub struct MachineName like "desktop",
        if |text| is_made_of(text, 1..=32, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') && !text.starts_with('-'),
        else |given| Error::new(Code::InvalidId, format!("{given:?} cannot be a machine's name"))
            .help("use 1 to 32 lower-case letters, digits or '-', the first a letter or a digit");

    /// The name of a repository on all machines: 32 of `0-9 a-f`, a digest of where it comes from.
    pub struct RepositoryName like "5f0c2d8e9b714a63a1f04c7be21d9035",
        if |text| is_made_of(text, 32..=32, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        else |given| Error::new(Code::InvalidRequest, format!("{given:?} cannot be a repository's name"))
            .help("give the one from GET /v1/gateway/peers of its machine, or none");
}

impl MachineName {
    /// The machine of the peer of another machine that has `id` here.
    pub fn of(id: &PeerId) -> Option<Self> {
        id.as_str().rsplit_once(SEPARATOR)?.1.parse().ok()
    }

    /// The id here of the peer that has `id` on this machine.
    pub fn id_of(&self, id: &PeerId) -> Result<PeerId, Error> {
        format!("{id}{SEPARATOR}{self}").parse()
    }

    /// The id on this machine of the peer that has `id` here.
    pub fn id_there(&self, id: &PeerId) -> Option<PeerId> {
        id.as_str().strip_suffix(self.as_str())?.strip_suffix(SEPARATOR)?.parse().ok()
    }

    /// The name here of the peer that is called `name` on this machine.
    pub fn name_of(&self, name: &str) -> Result<PeerRef, Error> {
        format!("{name}@{self}").parse()
    }
}

impl From<[u8; 16]> for RepositoryName {
    fn from(digest: [u8; 16]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(digest)).into())
    }
}

impl From<Peer> for RemotePeer {
    fn from(Peer { id, name, cwd, git_repo, git_branch, summary, .. }: Peer) -> Self {
        Self { id, name, cwd, git_repo, git_branch, summary }
    }
}

object! {
    /// Another machine that a link has shown.
    pub struct LinkedMachine {
        pub name: MachineName,
        /// When it was last heard, if it is away.
        pub away_since: Option<Timestamp>,
    }

    /// A peer of another machine, as that machine describes it.
    pub struct RemotePeer {
        /// Its id there; `cli` for the command line.
        pub id: PeerId,
        /// Its name there.
        pub name: String,
        #[serde(default)]
        pub cwd: String,
        pub git_repo: Option<String>,
        pub git_branch: Option<String>,
        #[serde(default)]
        pub summary: String,
    }

    /// A peer, as its machine announces it.
    pub struct AnnouncedPeer {
        #[serde(flatten)]
        pub peer: RemotePeer,
        /// The name of its repository on all machines; none without a remote that they share.
        pub repository: Option<RepositoryName>,
    }

    /// `GET /v1/gateway/peers`: the peers of this machine that can be reached now, for other machines.
    pub struct Present {
        pub peers: Vec<AnnouncedPeer>,
    }

    /// `POST /v1/gateway/announce`: all peers of a machine that can be reached now. Those that are not named are gone.
    pub struct Announce {
        pub machine: MachineName,
        pub peers: Vec<AnnouncedPeer>,
    }

    /// A message on its way between two machines.
    pub struct RemoteMessage {
        /// Its id on the sender's machine.
        pub id: MessageId,
        pub from: RemotePeer,
        /// The sender bypasses permission prompts.
        #[serde(default)]
        pub bypasses: bool,
        /// The recipient's id on its own machine.
        pub to: PeerId,
        pub text: String,
        pub sent_at: Timestamp,
        /// From then on it is not delivered any more.
        pub expires_at: Timestamp,
        /// The message that it answers, by its id on the recipient's machine.
        pub reply_to: Option<MessageId>,
        /// The earlier message of the same sender that it names instead, by its id on the sender's machine.
        pub follows: Option<MessageId>,
    }

    /// What became of a message on the machine of its recipient.
    pub struct RemoteReceipt {
        /// The message's id on the sender's machine.
        pub id: MessageId,
        /// `offered`, `delivered` or `expired`.
        pub state: MessageState,
        pub route: Option<Route>,
        /// Why it was not accepted there.
        pub refusal: Option<String>,
    }

    /// `POST /v1/gateway/take`: what has to go to other machines.
    pub struct TakeOutgoing {
        /// Wait up to this many seconds if there is nothing; at most 3,600.
        pub wait_seconds: Option<u32>,
    }

    /// Mail and receipts for other machines, each oldest first. They stay until they are acknowledged.
    pub struct Outgoing {
        pub messages: Vec<OutgoingMessage>,
        pub receipts: Vec<OutgoingReceipt>,
    }

    pub struct OutgoingMessage {
        /// The recipient's machine.
        pub machine: MachineName,
        pub message: RemoteMessage,
    }

    pub struct OutgoingReceipt {
        /// The sender's machine.
        pub machine: MachineName,
        /// The message's id here.
        pub id: MessageId,
        pub receipt: RemoteReceipt,
    }

    /// `POST /v1/gateway/acknowledge`: these are stored on their way to the other machine.
    pub struct Forwarded {
        #[serde(default)]
        pub messages: Vec<MessageId>,
        #[serde(default)]
        pub receipts: Vec<Told>,
    }

    /// A receipt that needs to be taken no more, unless the message changes again.
    pub struct Told {
        /// The message's id here.
        pub id: MessageId,
        pub state: MessageState,
    }

    /// `POST /v1/gateway/receive`: a message from another machine.
    pub struct Receive {
        /// The sender's machine.
        pub machine: MachineName,
        pub message: RemoteMessage,
    }

    pub struct Received {
        /// Its id here; none if it has expired on the way.
        pub id: Option<MessageId>,
    }

    /// `POST /v1/gateway/confirm`: what became of messages to peers of another machine.
    pub struct Confirm {
        /// The recipients' machine. Receipts for messages to other machines are ignored.
        pub machine: MachineName,
        pub receipts: Vec<RemoteReceipt>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_peer_of_a_machine_has_one_id(id in "[a-z0-9_]{1,20}", machine in "[a-z0-9][a-z0-9-]{0,20}", other in "[a-z0-9][a-z0-9-]{0,20}") {
            let (id, machine, other): (PeerId, MachineName, MachineName) =
                (id.parse().unwrap(), machine.parse().unwrap(), other.parse().unwrap());
            let here = machine.id_of(&id).unwrap();
            prop_assert_eq!(machine.id_there(&here), Some(id));
            prop_assert_eq!(MachineName::of(&here), Some(machine.clone()));
            prop_assert_eq!(other.id_there(&here).is_some(), other == machine);
        }
    }
}
