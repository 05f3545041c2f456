//! Accepts messages: one transaction, one commit, then the sender's receipt.

use super::{
    Holder, InboxNews, Message, Refusal, Result, Transaction, acknowledge, history, link,
    message::{held_number, read_peer, stored_id},
    order, proof,
    release::Rule,
};
use crate::{
    db::{self, PeerRow, View, params, peers},
    wire::{CLI_SENDER, Held, HeldBy, MessageId, MessageState, PeerId, Receipt, Route, Timestamp},
};
use std::time::Duration;

/// A message that is not accepted yet.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The random part of its id.
    pub tag: String,
    pub from: PeerId,
    pub to: PeerId,
    pub text: String,
    pub reply_to: Option<MessageId>,
    /// The sender's idempotency key.
    pub key: Option<String>,
    pub sent_at: Timestamp,
    pub expires_at: Timestamp,
    /// The recipient's process whose open stream would push it now.
    pub stream: Option<String>,
    /// A command line inside the recipient's session waits for this answer and gets it instead of the session.
    pub for_cli_inside: bool,
}

impl NewMessage {
    /// A message that answers no question. It is sent `now` and expires after `wait`.
    pub fn new(tag: String, from: PeerId, to: PeerId, text: String, now: Timestamp, wait: Duration) -> Self {
        let expires_at = now.plus(wait);
        Self { tag, from, to, text, reply_to: None, key: None, sent_at: now, expires_at, stream: None, for_cli_inside: false }
    }
}

/// The terms for all copies of a message.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Whether the user sends it by hand.
    pub by_user: bool,
    /// Whether the sender itself named the question, which proves that it has read it.
    pub names_question: bool,
    /// How many messages may wait for one recipient.
    pub most_waiting: u32,
}

/// Each recipient's copy, or why it was refused.
pub type Copies = Vec<(PeerId, Result<Message, Refusal>)>;

/// Accepts these copies of one message. If a recipient cannot take its copy, only that copy is refused; any other refusal
/// refuses all of them, before the first is stored.
pub fn accept(tx: &mut Transaction<'_>, copies: Vec<NewMessage>, terms: Terms) -> Result<Copies> {
    let sender = match copies.first() {
        Some(first) if !terms.by_user => Some(peers::get(tx, &first.from)?.ok_or(Refusal::UnknownSender)?),
        _ => None,
    };
    let check = |new: NewMessage| Ok((new.to.clone(), Check::of(tx, new, sender.as_ref(), terms)?));
    let checks = copies.into_iter().map(check).collect::<Result<Vec<_>>>()?;
    let mut store = |check| match check {
        Check::Refused(refusal) => Ok(Err(refusal)),
        Check::Known(message) => Ok(Ok(message)),
        Check::Fresh { new, rule, question } => store(tx, new, rule, sender.as_ref(), question, terms).map(Ok),
    };
    checks.into_iter().map(|(to, check)| Ok((to, store(check)?))).collect()
}

/// What the tables say about a copy before anything is stored.
enum Check {
    Refused(Refusal),
    /// It was stored before.
    Known(Message),
    /// It can be stored, under its recipient's rule.
    Fresh {
        new: NewMessage,
        rule: Rule,
        question: Option<Question>,
    },
}

impl Check {
    fn of(view: &View<'_>, new: NewMessage, sender: Option<&PeerRow>, terms: Terms) -> Result<Self> {
        Ok(match preview(view, &new, terms.most_waiting)? {
            Err(refusal) => Self::Refused(refusal),
            Ok(Some(message)) => Self::Known(message),
            Ok(None) => match Rule::stored(view, &new.to)? {
                None if new.to.as_str() != CLI_SENDER => Self::Refused(Refusal::NoSuchRecipient(new.to)),
                rule => {
                    let question = new.reply_to.as_ref().map(|id| Question::find(view, id, sender)).transpose()?;
                    if let (Some(_), Some(question)) = (sender, &question) {
                        question.check(&new)?;
                    }
                    Self::Fresh { new, rule: rule.unwrap_or(Rule::Nothing), question }
                }
            },
        })
    }
}

/// The message already stored under the key of `new`, or the reason why its recipient cannot take it. An unknown recipient is
/// left to [`accept`]: its registration may not be on disk yet.
pub fn preview(view: &View<'_>, new: &NewMessage, most_waiting: u32) -> Result<Result<Option<Message>, Refusal>> {
    if let Some(message) = sent_before(view, new)? {
        return Ok(Ok(Some(message)));
    }
    let Some(waiting) = history::waiting_from(view, &new.to, most_waiting)? else { return Ok(Ok(None)) };
    let name = view.one("SELECT name FROM peer WHERE id = ?1", [new.to.as_str()], |row| row.get(0))?;
    Ok(match name {
        Some(name) => Err(Refusal::MailboxFull { waiting, most: most_waiting, name }),
        None => Ok(None),
    })
}

/// The message sent earlier under the key of `new`. It may be an answer that the command line got instead of its session.
pub fn sent_before(view: &View<'_>, new: &NewMessage) -> Result<Option<Message>> {
    let Some(key) = &new.key else { return Ok(None) };
    let found = Message::one(view, "from_peer = ?1 AND key = ?2", [new.from.as_str(), key])?;
    let Some(message) = found else { return Ok(None) };
    let to = &message.receipt.to;
    let same_recipient = *to == new.to || new.reply_to.is_some() && to.as_str() == CLI_SENDER;
    if !same_recipient || message.text != new.text {
        return Err(Refusal::KeyReused { key: key.clone(), message: message.receipt.message_id }.into());
    }
    Ok(Some(message))
}

/// Stores a message under its recipient's rule, and records which earlier messages it confirms.
fn store(
    tx: &mut Transaction<'_>,
    mut new: NewMessage,
    rule: Rule,
    sender: Option<&PeerRow>,
    question: Option<Question>,
    terms: Terms,
) -> Result<Message> {
    let is_answer = question.as_ref().is_some_and(|asked| asked.from == new.to);
    // The permission modes matter neither for messages that the user sends by hand nor for answers, which were asked for.
    let passes = terms.by_user || is_answer;
    let bypassed = bypasses_for(tx, sender, &new.to)?;
    let held = rule.holds(passes, bypassed);
    if let Some(sender) = sender {
        confirm(tx, &new, sender, question.filter(|_| terms.names_question))?;
    }
    if new.for_cli_inside {
        new.to = PeerId::lenient(CLI_SENDER);
    }
    let stream = match new.stream.take() {
        Some(instance) if held.is_none() && order::is_next_for_stream(tx, &new.to, &instance)? => {
            Some(Holder::Stream { instance })
        }
        _ => None,
    };
    let message = insert(tx, new, stream.as_ref(), Controls { passes, bypassed, held })?;
    link::mark(tx, &message.receipt.message_id, rule == Rule::Elsewhere, sender)?;
    tx.accepted(&message, stream.is_some());
    Ok(message)
}

/// How the recipient's controls treat a message.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Controls {
    /// Whether it is let in regardless of permission modes.
    pub passes: bool,
    /// Whether its sender bypasses permission prompts.
    pub bypassed: bool,
    /// Why it is held on arrival, if it is.
    pub held: Option<HeldBy>,
}

/// Whether the sender counts as one that bypasses permission prompts.
fn bypasses_for(view: &View<'_>, sender: Option<&PeerRow>, to: &PeerId) -> Result<bool> {
    let Some(sender) = sender.filter(|sender| sender.bypasses) else { return Ok(false) };
    let container: Option<Option<String>> = match sender.container {
        Some(_) => view.one("SELECT container FROM peer WHERE id = ?1", [to.as_str()], |row| row.get(0))?,
        None => None,
    };
    Ok(sender.bypasses_for(container.flatten().as_deref()))
}

/// Inserts a message. If there is a `stream`, it pushes the message at once.
pub(super) fn insert(tx: &Transaction<'_>, new: NewMessage, stream: Option<&Holder>, controls: Controls) -> db::Result<Message> {
    let sql = "INSERT INTO message (tag, from_peer, to_peer, text, reply_to, key, sent_at, expires_at, holder, instance, handed,
                   passes, bypassed, held_at, held_by)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, coalesce(?9, 0), ?10, ?9 IS NOT NULL, ?11, ?12, ?13, ?14)";
    let values = params![
        new.tag,
        new.from.as_str(),
        new.to.as_str(),
        new.text,
        new.reply_to.as_ref().map(ToString::to_string),
        new.key,
        new.sent_at.as_millis(),
        new.expires_at.as_millis(),
        stream.map(Holder::kind),
        stream.map(Holder::instance),
        controls.passes,
        controls.bypassed,
        controls.held.map(|_| new.sent_at.as_millis()),
        held_number(controls.held),
    ];
    tx.run(sql, values)?;
    let receipt = Receipt {
        message_id: stored_id(tx.last_id(), &new.tag)?,
        from: new.from,
        to_name: new.to.to_string(),
        to: new.to,
        state: if controls.held.is_some() { MessageState::Held } else { MessageState::Queued },
        route: None,
        sent_at: new.sent_at,
        forwarded_at: None,
        offered_at: None,
        delivered_at: None,
        held: controls.held.map(|by| Held { at: new.sent_at, by }),
        expired_at: None,
        expires_at: new.expires_at,
        reply_to: new.reply_to,
        warning: None,
    };
    Ok(Message { receipt, text: new.text, handed: stream.is_some().into() })
}

/// The message that a new message names as its question.
struct Question {
    id: MessageId,
    from: PeerId,
    to: PeerId,
    /// Whether only a push into the inbox or channel of the sender's agent process can have shown it. A push to an earlier agent
    /// process does not count: a resumed session remembers the messages it was shown.
    is_pushed: bool,
}

impl Question {
    fn find(view: &View<'_>, id: &MessageId, sender: Option<&PeerRow>) -> Result<Self> {
        // `handed` counts the push, unless that showed only the beginning.
        let sql =
            "SELECT from_peer, to_peer, state < 2 AND handed <= (again < 2) AND (holder = 1 OR holder = 0 AND pushed_by IS ?3)
                   FROM message WHERE seq = ?1 AND tag = ?2";
        let found = view.one(sql, params![id.seq(), id.tag(), sender.map(PeerRow::agent_key)], |row| {
            Ok(Self { id: id.clone(), from: read_peer(row, 0)?, to: read_peer(row, 1)?, is_pushed: row.get(2)? })
        })?;
        Ok(found.ok_or_else(|| Refusal::NoSuchQuestion(id.clone()))?)
    }

    /// Whether the sender of `new` may name it.
    fn check(&self, new: &NewMessage) -> Result<(), Refusal> {
        if new.to.as_str() == CLI_SENDER && self.from.as_str() != CLI_SENDER {
            Err(Refusal::NotAskedByCli(self.id.clone()))
        } else if self.to != new.from && self.from != new.from {
            Err(Refusal::NoSuchQuestion(self.id.clone()))
        } else {
            Ok(())
        }
    }
}

/// Records what a new message proves. A message that names a question shows that its sender has read that question. If the
/// question was pushed, the sender's inbox or channel works. Once that has proved itself, any message to a peer confirms the
/// pushed messages from that peer. An unproved inbox or channel may be dead, and the session may write of its own accord.
fn confirm(tx: &mut Transaction<'_>, new: &NewMessage, sender: &PeerRow, question: Option<Question>) -> Result<()> {
    let mut has_proved = sender.has_proved();
    if let Some(asked) = question.filter(|asked| asked.to == new.from) {
        if acknowledge::deliver(tx, &new.from, &asked.id, Route::Reply)? {
            tx.inbox(&new.from, InboxNews::LetIn(asked.id));
        }
        if !has_proved && asked.is_pushed {
            proof::prove(tx, sender)?;
            has_proved = true;
        }
    }
    if has_proved {
        proof::confirm_pushed(tx, &new.from, &new.to)?;
    }
    Ok(())
}

/// The key of one recipient's copy of a message to many. It contains a blank, so it differs from every client's key.
pub fn key_of_copy(key: &str, to: &PeerId) -> String {
    format!("{key} {to}")
}

/// The recipients to whom `from` sent copies of a message under this key.
pub fn copies_of(view: &View<'_>, from: &PeerId, key: &str) -> db::Result<Vec<PeerId>> {
    let sql = "SELECT to_peer FROM message WHERE from_peer = ?1 AND key > ?2 || ' ' AND key < ?2 || '!'";
    view.all(sql, [from.as_str(), key], |row| read_peer(row, 0))
}
