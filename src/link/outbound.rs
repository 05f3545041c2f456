//! From the broker to the hub: what has to go to other machines, as one letter for each.

use super::{
    directory::Member,
    ends::Link,
    hub::{Connection, Stored},
    report::json,
    retry::{PAUSE, until_answered},
    seal::{ADDED, Content, Letter},
    subject,
};
use crate::{
    platform::clock,
    wire::{
        self, Acknowledged, Confirm, Forwarded, MachineName, MessageState, Outgoing, OutgoingMessage, OutgoingReceipt,
        RemoteMessage, RemoteReceipt, TakeOutgoing, Told,
    },
};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};

/// How long one take waits. The broker answers as soon as there is mail.
const WAIT: Duration = Duration::from_secs(3_600);
/// Room for the names and brackets around what a letter holds.
const ROUND: usize = 1_024;
/// The most messages and receipts in one letter.
const MOST: usize = 1_000;

/// What goes to one machine in one letter.
#[derive(Default)]
pub(super) struct Batch {
    messages: Vec<RemoteMessage>,
    pub receipts: Vec<RemoteReceipt>,
    /// The ids of the messages whose receipts it has.
    told: Vec<Told>,
    bytes: usize,
}

impl Link {
    /// Takes what has to go to other machines, stores it on the hub, and acknowledges it, again and again.
    pub(super) async fn send_outgoing(&self) {
        let mut state = self.hub.state.clone();
        loop {
            // The broker takes a link that fetches nothing for one that does not reach its hub.
            if state.wait_for(Connection::is_connected).await.is_err() {
                return;
            }
            let outgoing = tokio::select! {
                outgoing = self.take() => outgoing,
                _ = state.wait_for(|state| !state.is_connected()) => continue,
            };
            let sent = match outgoing {
                Ok(outgoing) => self.send(outgoing).await,
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                tracing::error!(code = %error.code, "the broker: {}", error.message);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn take(&self) -> wire::Result<Outgoing> {
        let request = TakeOutgoing { wait_seconds: u32::try_from(WAIT.as_secs()).ok() };
        let take = async || self.broker.post_waiting::<Outgoing>("/v1/gateway/take", None, &request, WAIT).await;
        until_answered(take).await
    }

    async fn send(&self, outgoing: Outgoing) -> wire::Result<()> {
        let sizes = self.room().await;
        let (batches, too_large) = sorted(outgoing, sizes)?;
        for (machine, id, size) in too_large {
            let refusal = format!("it takes {size} bytes on its way, and the hub takes {sizes} at most");
            self.refuse_here(&machine, vec![id], &refusal).await?;
        }
        let stored = join_all(batches.into_iter().map(|(machine, batches)| self.send_to(machine, batches))).await;
        let is_all = stored.iter().all(|stored| matches!(stored, Ok(true)));
        stored.into_iter().collect::<wire::Result<Vec<bool>>>()?;
        if !is_all {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// How many bytes of messages and receipts the hub takes in one letter.
    pub(super) async fn room(&self) -> usize {
        self.hub.largest().await.saturating_sub(ADDED + ROUND)
    }

    /// Sends one machine its letters, in order. Returns whether the hub had room for all.
    async fn send_to(&self, machine: MachineName, batches: Vec<Batch>) -> wire::Result<bool> {
        for batch in batches {
            let mut messages = batch.messages.iter().map(|message| message.id.clone()).collect();
            match self.store(&machine, &batch.messages, &batch.receipts).await? {
                Some(Stored::Yes) => {}
                Some(Stored::Full(cause)) => {
                    self.refuse_here(&machine, messages, &format!("the hub has no room for it: {cause}")).await?;
                    return Ok(false);
                }
                None => {
                    let refused = std::mem::take(&mut messages);
                    self.refuse_here(&machine, refused, &format!("{machine} is not one of your machines any more")).await?;
                }
            }
            let stored = Forwarded { messages, receipts: batch.told };
            self.ask_broker::<Acknowledged>("/v1/gateway/acknowledge", &stored).await?;
        }
        Ok(true)
    }

    /// Stores a letter for `machine`; none if that is no machine of the directory.
    pub(super) async fn store(
        &self,
        machine: &MachineName,
        messages: &[RemoteMessage],
        receipts: &[RemoteReceipt],
    ) -> wire::Result<Option<Stored>> {
        let Some(member) = self.member(machine).await else { return Ok(None) };
        let seal = || {
            let letter = Letter { sealed_at: clock::now(), messages: messages.to_vec(), receipts: receipts.to_vec() };
            self.seal.seal(&member, &Content::Letter(letter))
        };
        let subject = subject::mail(&self.seal.machine, machine);
        self.hub.store(&subject, &id_of(&self.seal.machine, &member, messages, receipts), seal).await.map(Some)
    }

    /// Tells the senders here that their messages cannot go to `machine`.
    async fn refuse_here(&self, machine: &MachineName, messages: Vec<wire::MessageId>, refusal: &str) -> wire::Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let refused = |id| expired(id, Some(refusal.to_owned()));
        let confirm = Confirm { machine: machine.clone(), receipts: messages.into_iter().map(refused).collect() };
        self.ask_broker::<Acknowledged>("/v1/gateway/confirm", &confirm).await.map(drop)
    }
}

/// The receipt of a message that is not accepted, or that has expired on its way.
pub(super) fn expired(id: wire::MessageId, refusal: Option<String>) -> RemoteReceipt {
    RemoteReceipt { id, state: MessageState::Expired, route: None, refusal }
}

/// What is too large for any letter: the machine, the message and its size.
pub(super) type TooLarge = Vec<(MachineName, wire::MessageId, usize)>;

/// Sorts what has to go by machine, into letters of at most `most` bytes and `MOST` messages and receipts each.
pub(super) fn sorted(outgoing: Outgoing, most: usize) -> wire::Result<(BTreeMap<MachineName, Vec<Batch>>, TooLarge)> {
    let (mut letters, mut too_large) = (BTreeMap::<MachineName, Vec<Batch>>::new(), TooLarge::new());
    for OutgoingMessage { machine, message } in outgoing.messages {
        match size_of(&message)? {
            size if size > most => too_large.push((machine, message.id, size)),
            size => with_room(letters.entry(machine).or_default(), size, most).messages.push(message),
        }
    }
    for OutgoingReceipt { machine, id, receipt } in outgoing.receipts {
        let batch = with_room(letters.entry(machine).or_default(), size_of(&receipt)?, most);
        batch.told.push(Told { id, state: receipt.state });
        batch.receipts.push(receipt);
    }
    Ok((letters, too_large))
}

/// The last of these letters, or a new one if that has no room for so many bytes more.
fn with_room(letters: &mut Vec<Batch>, bytes: usize, most: usize) -> &mut Batch {
    let last = letters.pop_if(|last| last.bytes + bytes <= most && last.messages.len() + last.receipts.len() < MOST);
    let last = last.unwrap_or_default();
    letters.push_mut(Batch { bytes: last.bytes + bytes, ..last })
}

fn size_of(value: &impl serde::Serialize) -> wire::Result<usize> {
    // One more for the comma.
    Ok(json(value)?.len() + 1)
}

/// The id by which the stream knows a letter again: the same for the same messages and receipts, sealed by the same machine to the same key.
/// A machine that was set up anew cannot open what was sealed to its old one. The texts are no part of it, because the hub sees it.
fn id_of(from: &MachineName, to: &Member, messages: &[RemoteMessage], receipts: &[RemoteReceipt]) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{from} {} {}\n", to.name, to.seal));
    messages.iter().for_each(|message| digest.update(format!("{}\n", message.id)));
    receipts.iter().for_each(|receipt| digest.update(format!("{} {}\n", receipt.id, receipt.state)));
    data_encoding::HEXLOWER.encode(&digest.finalize())
}
