//! Questions: waits for the answer to a message. Also the mailbox of the command line, which takes only answers.
//!
//! An answer is a message from the recipient that names the question. If the recipient is gone, the wait ends at once.
//!
//! A question from a command line inside a session belongs to that session. While the command waits, it gets the answer, and the
//! session reads it in the command's output. A later answer is an ordinary message to the session.

use super::{
    core::{Broker, Caller, OnDrop},
    presence::{LOOK, LOOK_AGAIN},
    roster::Awaited,
    send::warning,
    wait::Wait,
};
use crate::{
    db,
    mailbox::{
        self, Message,
        accept::{NewMessage, sent_before},
        history,
    },
    platform::clock,
    wire::{self, Asked, AwaitReply, CLI_SENDER, Code, Error, MessageId, MessageState, PeerId, Status},
};
use tokio::time::Instant;

impl Broker {
    /// The question `id` with its answer. Waits as long as an answer may come. `inside` is the session in which the waiting
    /// command line runs.
    pub async fn reply_to(&self, caller: &Caller, inside: Option<&PeerId>, id: &str, request: AwaitReply) -> wire::Result<Asked> {
        let mut wait = Wait::new(request.wait_seconds, self.changes.hints());
        let waits = !wait.is_over();
        let mut asking = None;
        loop {
            if asking.is_none() && waits {
                let question = self.asked(caller, id).await?.question;
                let inside = inside.filter(|session| **session == question.from).cloned();
                asking = Some(self.note_awaited(Awaited { question: question.message_id, inside }));
            }
            let asked = self.asked(caller, id).await?;
            let over = asked.answer.is_some() || asked.recipient == Status::Gone || asked.question.state == MessageState::Expired;
            if over || wait.is_over() {
                return Ok(asked);
            }
            wait.change(self, Some(Instant::now() + LOOK_AGAIN)).await?;
        }
    }

    /// Marks this answer as awaited as long as the returned value lives.
    fn note_awaited(&self, awaited: Awaited) -> OnDrop<impl FnMut()> {
        self.roster().asked.push(awaited.clone());
        OnDrop(move || {
            let asked = &mut self.roster().asked;
            if let Some(at) = asked.iter().position(|asked| *asked == awaited) {
                asked.swap_remove(at);
            }
        })
    }

    /// The command line's question that `new` answers without naming it. There must be exactly one awaited question that was
    /// handed to the sender of `new`. A message repeated under its key answers the same question as before.
    pub(super) fn meant_question(&self, new: &NewMessage) -> wire::Result<Option<MessageId>> {
        let mut asked: Vec<MessageId> = self.roster().asked.iter().map(|asked| asked.question.clone()).collect();
        asked.sort();
        asked.dedup();
        let find = |view: &db::View<'_>| {
            if let Some(before) = sent_before(view, new)? {
                return Ok((before.receipt.reply_to, Vec::new()));
            }
            let mut open = Vec::new();
            for id in asked {
                let was_handed =
                    |asked: Message| asked.receipt.from == new.to && asked.receipt.to == new.from && asked.handed > 0;
                if history::get(view, &id)?.is_some_and(was_handed) && history::answer(view, &id, &new.from, &new.to)?.is_none() {
                    open.push(id);
                }
            }
            Ok::<_, mailbox::Error>((None, open))
        };
        match self.store.glance(find)? {
            (Some(before), _) => Ok(Some(before)),
            (None, open) if open.len() < 2 => Ok(open.into_iter().next()),
            (None, several) => {
                let ids = several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let what = format!("{CLI_SENDER} waits for the answers to {ids}, and this message names none of them");
                Err(Error::new(Code::InvalidRequest, what)
                    .help("send it again with replyTo, the id of the question that it answers"))
            }
        }
    }

    async fn asked(&self, caller: &Caller, id: &str) -> wire::Result<Asked> {
        let mut question = self.message(caller, id).await?.receipt;
        let (id, from, to) = (question.message_id.clone(), question.from.clone(), question.to.clone());
        let cli = PeerId::lenient(CLI_SENDER);
        let find = move |view: &db::View<'_>| match history::answer(view, &id, &to, &from)? {
            None if from != cli => history::answer(view, &id, &to, &cli), // the command line inside the session that asked
            found => Ok(found),
        };
        let answer = self.store.read(find).await?.map(|answer| self.entry(answer));
        self.look(LOOK, |peer| peer.row.id == question.to).await;
        let now = clock::now();
        let roster = self.roster();
        question.warning = warning(&roster, &question, now);
        let recipient = roster.peers.get(&question.to).map_or(Status::Gone, |peer| peer.status(now));
        drop(roster);
        Ok(Asked { question, recipient, answer })
    }
}
