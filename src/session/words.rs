//! The state of a sent message, in words for the model.

use crate::{
    agents::shown,
    wire::{Asked, Broadcast, Error, Receipt, Recipient, text::printable_line},
};

fn to(sent: &Receipt) -> String {
    format!("message {} to {} ({})", sent.message_id, printable_line(&sent.to_name), sent.to)
}

/// The state of a message to one peer.
pub fn sent(sent: &Receipt) -> String {
    let note = sent.warning.as_ref().map(|warning| format!(" Note: {warning}")).unwrap_or_default();
    format!("Accepted {}: {}.{note}", to(sent), sent.state)
}

/// How an answer reaches a session.
fn arrival(has_door: bool) -> &'static str {
    if has_door { "will arrive by itself" } else { "will come in a result of these tools" }
}

/// A question whose wait ended because other messages arrived.
pub fn interrupted(sent: &Receipt, has_door: bool) -> String {
    format!(
        "The {} is not answered yet. The wait ended because the messages below came; you may have to deal with them first. The \
         answer {}; to wait for it again, call check_messages with waitSeconds.",
        to(sent),
        arrival(has_door)
    )
}

/// A question without an answer, and its known state.
pub fn unanswered(sent: &Receipt, known: Result<&Asked, &Error>, has_door: bool) -> String {
    let why = match known {
        Err(error) => format!("what became of it is not known: {error}"),
        Ok(Asked { answer: Some(answer), .. }) => {
            let id = &answer.receipt.message_id;
            return format!(
                "The {} was answered, but the answer went another way: read it with check_messages, messageId {id}.",
                to(sent)
            );
        }
        Ok(known) => shown::fate(known),
    };
    format!("No answer yet to {}: {why}. An answer {}.", to(sent), arrival(has_door))
}

/// The state of a message to everyone in a scope.
pub fn broadcast(broadcast: &Broadcast, everyone: &Recipient) -> String {
    let refused = broadcast.refused.iter();
    let refused = refused.map(|to| format!("Not sent to {} ({}): {}", printable_line(&to.to_name), to.to, to.error));
    let lines: Vec<String> = broadcast.receipts.iter().map(sent).chain(refused).collect();
    match lines.is_empty() {
        true => format!("There are no other peers in {everyone}: nothing was sent."),
        false => lines.join("\n"),
    }
}
