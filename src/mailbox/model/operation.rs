//! The operations on the mailbox, each as a transaction of `broker/` runs it.

use crate::{
    db::{PeerRow, peers},
    mailbox::{
        Error, Holder, Message, Transaction,
        accept::{self, NewMessage, Terms},
        acknowledge, expire, history,
        lease::{self, Claim, Taker},
        poll, proof, release, serve,
    },
    wire::{Acknowledgement, InboundRule, MessageId, Outcome, PeerId, Process, Route, Timestamp},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The time of everything but expiry.
const NOW: Timestamp = Timestamp::from_millis(1);
/// The recipient of the model's messages.
pub const RECIPIENT: &str = "recipient";
/// When every message expires.
const LATER: Timestamp = Timestamp::from_millis(100);
const TAG: &str = "tag";
/// Added to the place of a message: an id whose tag is guessed.
pub const GUESSED: i64 = 1 << 32;
/// A sender that bypasses permission prompts, and one whose messages do not expire.
pub const BYPASSING: &str = "c";
pub const LASTING: &str = "b";
/// A sender in a container, where it bypasses permission prompts, which counts for nothing outside.
pub const CONTAINED: &str = "d";
/// How many held messages are posted at once.
pub const MOST_POSTED: u32 = 2;
/// A text of which the inbox and the channel show only the beginning.
const LONG: &str = "a long text";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A peer registers, served by a process of its name.
    Meet(String),
    /// The recipient registers, served by a process.
    Register(Facts),
    /// The process that serves the recipient serves another conversation from now on.
    Leave,
    Send(Draft),
    /// `is_outdated`: a newer request replaces this one.
    Lease {
        instance: String,
        lease: Option<String>,
        route: Taking,
        is_outdated: bool,
        limit: Limit,
    },
    /// The messages that the stream of this process has leased.
    Leased {
        instance: String,
        after: i64,
    },
    /// Whether a lease would return any message.
    IsAny {
        instance: String,
        lease: Option<String>,
        route: Taking,
    },
    /// By the recipient, or by another peer.
    Acknowledge {
        peer: &'static str,
        route: Route,
        messages: Vec<(i64, Outcome, Option<String>)>,
    },
    /// The prompt hook of a peer reports that these messages were let in.
    Prompt {
        peer: &'static str,
        messages: Vec<i64>,
    },
    /// The user reads a message at the command line.
    ReadByUser(i64),
    Miss,
    Pending,
    ToPost,
    Posted(Vec<i64>),
    Release(i64),
    /// The recipient's controls change, or are told again later.
    Control {
        inbound: InboundRule,
        bypasses: bool,
        is_again: bool,
    },
    Expire,
    /// What a hook of the agent has taken and not shown waits again.
    EndHooks,
    /// The waiting messages of one peer move to another.
    Move {
        from: &'static str,
        to: &'static str,
    },
    Poll,
    IsPollDue,
    IsWaiting,
    /// All of these, one after the other; answers how many messages were accepted.
    All(Vec<Operation>),
}

/// What a registration says of the recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    pub instance: String,
    pub agent: u32,
    pub has_channel: bool,
    pub has_inbox: bool,
    pub has_hook: bool,
    pub legacy: bool,
    pub inbound: InboundRule,
    pub bypasses: bool,
}

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Draft {
    pub from: String,
    pub to: String,
    pub key: String,
    pub is_long: bool,
    pub reply_to: Option<i64>,
    /// Whether the sender itself named the question.
    pub names: bool,
    pub stream: Option<String>,
    /// A command line inside the recipient's session waits for it.
    pub for_cli_inside: bool,
    /// How many messages may wait; 0 stands for many.
    pub most_waiting: u32,
    pub text: &'static str,
}

impl Draft {
    pub fn new(from: &str, to: &str, key: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), key: key.to_owned(), names: true, ..Self::default() }
    }
}

/// Who takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Taking {
    Stream,
    Result,
    Check,
    Inbox,
}

/// How much a take asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    None,
    /// One message.
    Message,
    /// No bytes, so only the first message, regardless of its size.
    Size,
}

/// A message as its recipient gets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Given {
    pub seq: i64,
    pub repeat: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Number(i64),
    Yes(bool),
    Mail(Vec<Given>),
    Refused,
}

pub fn agent_key(agent: u32) -> String {
    format!("{agent}:1")
}

fn recipient() -> PeerId {
    RECIPIENT.parse().unwrap()
}

fn id(seq: i64) -> MessageId {
    MessageId::new(seq % GUESSED, if seq < GUESSED { TAG } else { "guess" }).unwrap()
}

fn given(messages: Vec<Message>) -> Answer {
    let give = |message: Message| Given { seq: message.receipt.message_id.seq(), repeat: message.handed > 1 };
    Answer::Mail(messages.into_iter().map(give).collect())
}

/// The row of the recipient.
fn row(tx: &Transaction<'_>) -> PeerRow {
    row_of(tx, RECIPIENT)
}

fn row_of(tx: &Transaction<'_>, peer: &str) -> PeerRow {
    peers::get(tx, &peer.parse().unwrap()).unwrap().unwrap()
}

impl Operation {
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Expire | Self::Control { is_again: true, .. } => LATER,
            _ => NOW,
        }
    }

    pub fn run(&self, tx: &mut Transaction<'_>) -> Answer {
        match self {
            Self::Meet(peer) => {
                let row = PeerRow::new(peer.parse().unwrap(), peer.clone(), "/".to_owned(), NOW);
                let (bypasses, container) =
                    (peer == BYPASSING || peer == CONTAINED, (peer == CONTAINED).then(|| "box".to_owned()));
                peers::put(tx, &PeerRow { bypasses, container, instance: peer.clone(), ..row }).unwrap();
            }
            Self::Register(facts) => register(tx, facts),
            Self::Leave => leave(tx),
            Self::Send(draft) => return send(tx, draft),
            Self::Lease { instance, lease, route, is_outdated, limit } => {
                let mut claim = claim(tx, instance, lease, *route);
                match limit {
                    Limit::None => {}
                    Limit::Message => claim.messages = 1,
                    Limit::Size => claim.bytes = 0,
                }
                claim.is_outdated.store(*is_outdated, Ordering::SeqCst);
                return given(lease::lease(tx, &claim).unwrap());
            }
            Self::Leased { instance, after } => {
                let holder = Holder::Stream { instance: instance.clone() };
                return given(lease::leased(tx, &recipient(), &holder, *after, u32::MAX).unwrap());
            }
            Self::IsAny { instance, lease, route } => {
                return Answer::Yes(lease::is_any(tx, &claim(tx, instance, lease, *route)).unwrap());
            }
            Self::Acknowledge { peer, route, messages } => {
                let messages = messages.iter().cloned();
                let messages = messages.map(|(seq, outcome, lease)| Acknowledgement { id: id(seq), outcome, lease });
                acknowledge::acknowledge(tx, &peer.parse().unwrap(), *route, messages.collect()).unwrap();
            }
            Self::Prompt { peer, messages } => prompt(tx, peer, messages),
            Self::ReadByUser(seq) => drop(acknowledge::read_by_user(tx, &[recipient()], &id(*seq)).unwrap()),
            Self::Miss => proof::miss(tx, &recipient(), &row(tx).agent_key()).unwrap(),
            Self::Pending => {
                let pending = proof::pending(tx, &recipient(), &row(tx).agent_key()).unwrap();
                return Answer::Mail(pending.iter().map(|id| Given { seq: id.seq(), repeat: false }).collect());
            }
            Self::ToPost => return to_post(tx),
            Self::Posted(messages) => release::posted(tx, &messages.iter().map(|seq| id(*seq)).collect::<Vec<_>>()).unwrap(),
            Self::Release(seq) => return Answer::Yes(release::release(tx, &id(*seq)).unwrap()),
            Self::Control { inbound, bypasses, .. } => control(tx, *inbound, *bypasses),
            Self::Expire => {
                let is_due = expire::next_expiry(tx).unwrap().is_some_and(|next| next <= LATER);
                let expired = expire::expire(tx, Duration::from_secs(1), 100, || TAG.to_owned()).unwrap();
                return Answer::Yes((expired > 0) == is_due);
            }
            Self::EndHooks => lease::end_hooks_leases(tx, &recipient()).unwrap(),
            Self::Move { from, to } => lease::move_waiting(tx, &from.parse().unwrap(), &to.parse().unwrap()).unwrap(),
            Self::Poll => return given(poll::poll(tx, &recipient(), 100).unwrap()),
            Self::IsPollDue => return Answer::Yes(poll::is_due(tx, &recipient()).unwrap()),
            Self::All(operations) => {
                let accepted = operations.iter().filter(|operation| matches!(operation.run(tx), Answer::Number(_)));
                return Answer::Number(i64::try_from(accepted.count()).unwrap());
            }
            Self::IsWaiting => return Answer::Yes(history::is_waiting(tx, &recipient()).unwrap()),
        }
        Answer::Done
    }
}

/// As `Registration::store` does it.
fn register(tx: &mut Transaction<'_>, facts: &Facts) {
    let old = peers::get(tx, &recipient()).unwrap();
    let fresh = || PeerRow::new(recipient(), RECIPIENT.to_owned(), "/".to_owned(), NOW);
    let row = PeerRow {
        instance: facts.instance.clone(),
        agent: Some(Process { pid: facts.agent, started: 1 }),
        channel: facts.has_channel,
        inbox: facts.has_inbox.then(|| "/inbox".to_owned()),
        hooked: facts.has_hook.then(|| agent_key(facts.agent)),
        hook_proves_all: facts.has_hook,
        legacy: facts.legacy,
        inbound: facts.inbound,
        bypasses: facts.bypasses,
        ..old.unwrap_or_else(fresh)
    };
    serve::serve(tx, &row).unwrap();
}

/// As `Broker::switch_session` does it.
fn leave(tx: &mut Transaction<'_>) {
    let row = PeerRow { instance: String::new(), agent: None, inbox: None, ..row(tx) };
    serve::leave(tx, &row).unwrap();
}

fn send(tx: &mut Transaction<'_>, draft: &Draft) -> Answer {
    let Draft { from, to, key, is_long, reply_to, names, stream, for_cli_inside, most_waiting, text } = draft.clone();
    let by_user = from == "cli";
    let wait = Duration::from_millis(if from == LASTING { 500 } else { 50 });
    let (from, to) = (PeerId::lenient(&from), PeerId::lenient(&to));
    let new = NewMessage {
        key: Some(key),
        reply_to: reply_to.map(id),
        stream,
        for_cli_inside,
        ..NewMessage::new(TAG.to_owned(), from, to, if is_long { LONG.to_owned() } else { format!("a text{text}") }, NOW, wait)
    };
    let most_waiting = if most_waiting > 0 { most_waiting } else { 100 };
    match accept::accept(tx, vec![new], Terms { by_user, names_question: names, most_waiting }) {
        Ok(copies) => match copies.into_iter().next().unwrap().1 {
            Ok(message) => {
                assert_eq!(
                    history::get(tx, &message.receipt.message_id).unwrap().as_ref(),
                    Some(&message),
                    "the receipt is wrong"
                );
                Answer::Number(message.receipt.message_id.seq())
            }
            Err(_) => Answer::Refused,
        },
        Err(Error::Refused(_)) => Answer::Refused,
        Err(Error::Db(error)) => panic!("{error}"),
    }
}

fn claim(tx: &Transaction<'_>, instance: &str, lease: &Option<String>, route: Taking) -> Claim {
    let instance = instance.to_owned();
    let taker = match route {
        Taking::Stream => Taker::Stream,
        Taking::Result => Taker::Result,
        Taking::Check => Taker::Check,
        Taking::Inbox => Taker::Inbox(row(tx).agent_key()),
    };
    let holder = match lease.clone() {
        Some(lease) => Holder::Take { instance, lease },
        None => Holder::Stream { instance },
    };
    Claim { peer: recipient(), holder, taker, messages: u32::MAX, bytes: usize::MAX, is_outdated: Arc::default() }
}

/// As `Broker::note_hook` does it.
fn prompt(tx: &mut Transaction<'_>, peer: &str, messages: &[i64]) {
    let peer = row_of(tx, peer);
    acknowledge::prompt(tx, &peer, messages.iter().map(|seq| id(*seq)).collect(), |text| text != LONG).unwrap();
}

fn to_post(tx: &Transaction<'_>) -> Answer {
    let agent = row(tx).agent_key();
    if !release::has_to_post(tx, &recipient(), &agent).unwrap() {
        return Answer::Mail(Vec::new());
    }
    given(release::to_post(tx, &recipient(), &agent, MOST_POSTED).unwrap())
}

fn control(tx: &mut Transaction<'_>, inbound: InboundRule, bypasses: bool) {
    let peer = PeerRow { inbound, bypasses, ..row(tx) };
    peers::put(tx, &peer).unwrap();
    release::apply_rule(tx, &peer).unwrap();
}
