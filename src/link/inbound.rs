//! From the hub to the broker: the letters of other machines.

use super::{
    ends::Link,
    hub::{Connection, Stored, stored_at},
    outbound::{expired, sorted},
    retry::PAUSE,
    seal::{Content, Letter},
    subject,
};
use crate::{
    platform::clock,
    wire::{
        self, Acknowledged, Code, Confirm, MachineName, Outgoing, OutgoingReceipt, PeerId, Receive, Received, RemoteMessage,
        RemoteReceipt, Timestamp, text::printable_line,
    },
};
use async_nats::jetstream::{AckKind, Message};
use futures_util::{StreamExt, stream};
use std::{collections::BTreeMap, time::Duration};

/// How many messages are handed to the broker side by side. Those of one pair of peers are handed over one after the other.
const AT_ONCE: usize = 32;

/// How old a letter may be: the week that the hub keeps it, and another for clocks that are wrong. After a month, a broker does not know
/// its messages any more, and a hub could hand it out as a new one.
const OLDEST: Duration = Duration::from_secs(14 * 86_400);

impl Link {
    /// Hands the letters for this machine to the broker, and acknowledges them, again and again.
    pub(super) async fn receive_incoming(&self) {
        let mut state = self.hub.state.clone();
        loop {
            // Each change of the connection starts a new pull.
            if state.wait_for(Connection::is_connected).await.is_err() {
                return;
            }
            // A machine that was revoked meanwhile may have left letters.
            self.fetch_directory().await;
            let mut incoming = match self.hub.incoming(&self.seal.machine).await {
                Ok(incoming) => incoming,
                Err(error) => {
                    tracing::warn!("{}", error.message);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            while let Some(message) = tokio::select! {
                message = incoming.letters.next() => message,
                _ = state.changed() => None,
            } {
                match message {
                    Ok(message) => self.take_in(&message, incoming.ahead()).await,
                    Err(error) => {
                        tracing::debug!("waiting for mail on the hub: {error}");
                        break;
                    }
                }
            }
        }
    }

    /// Hands one letter to the broker, and then acknowledges it. This machine's clock is ahead of the hub's by `offset` milliseconds.
    async fn take_in(&self, message: &Message, offset: i64) {
        let kind = match self.hand_over(message, offset).await {
            Ok(()) => AckKind::Ack,
            Err(error) => {
                let subject = printable_line(&message.subject);
                tracing::error!(code = %error.code, "a letter on {subject} is dropped: {}", printable_line(&error.message));
                AckKind::Term
            }
        };
        // Without it, the hub hands the letter out again, and the broker knows the messages by their ids.
        if let Err(error) = message.ack_with(kind).await {
            tracing::warn!("acknowledging to the hub: {error}");
        }
    }

    async fn hand_over(&self, message: &Message, offset: i64) -> wire::Result<()> {
        let unreadable = |what: &str| wire::Error::new(Code::InvalidRequest, what.to_owned());
        let from = subject::publisher(&message.subject).ok_or_else(|| unreadable("its subject names no machine"))?;
        let Content::Letter(Letter { sealed_at, messages, receipts }) = self.open(&from, &message.payload).await? else {
            return Err(unreadable("it is no letter"));
        };
        if !receipts.is_empty() {
            let confirm = Confirm { machine: from.clone(), receipts };
            self.ask_broker::<Acknowledged>("/v1/gateway/confirm", &confirm).await?;
        }
        let mut pairs: BTreeMap<(PeerId, PeerId), Vec<RemoteMessage>> = BTreeMap::new();
        // Clocks may be wrong. The hub's has seen both ends, so all times become those of this machine's clock.
        let ahead = offset.saturating_add(stored_at(message)?.saturating_sub(sealed_at.as_millis()));
        let here = |time: Timestamp| Timestamp::from_millis(time.as_millis().saturating_add(ahead));
        for message in messages {
            let message = RemoteMessage { sent_at: here(message.sent_at), expires_at: here(message.expires_at), ..message };
            pairs.entry((message.from.id.clone(), message.to.clone())).or_default().push(message);
        }
        let receive = async |messages| match sealed_at.plus(OLDEST) < clock::now() {
            true => too_old(messages, sealed_at),
            false => self.receive_all(&from, messages).await,
        };
        let refused: Vec<Vec<RemoteReceipt>> =
            stream::iter(pairs.into_values()).map(receive).buffer_unordered(AT_ONCE).collect().await;
        let told = |receipt: RemoteReceipt| OutgoingReceipt { machine: from.clone(), id: receipt.id.clone(), receipt };
        let outgoing = Outgoing { messages: Vec::new(), receipts: refused.into_iter().flatten().map(told).collect() };
        let (letters, _) = sorted(outgoing, self.room().await)?;
        for letter in letters.into_values().flatten() {
            self.tell(&from, &letter.receipts).await?;
        }
        Ok(())
    }

    /// Stores a letter with these receipts; tries until the hub has room.
    async fn tell(&self, to: &MachineName, receipts: &[RemoteReceipt]) -> wire::Result<()> {
        while let Some(Stored::Full(cause)) = self.store(to, &[], receipts).await? {
            tracing::warn!("the hub has no room for receipts: {cause}; trying again until it has");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Hands the messages of one pair of peers to the broker, in order. Returns the receipts of those that it refuses.
    async fn receive_all(&self, from: &MachineName, messages: Vec<RemoteMessage>) -> Vec<RemoteReceipt> {
        let mut refused = Vec::new();
        for message in messages {
            let id = message.id.clone();
            let receive = Receive { machine: from.clone(), message };
            let refusal = match self.ask_broker("/v1/gateway/receive", &receive).await {
                Ok(Received { id: Some(_) }) => continue,
                Ok(Received { id: None }) => None,
                Err(error) => Some(error.message),
            };
            refused.push(expired(id, refusal));
        }
        refused
    }
}

/// Refuses these messages of an old letter.
fn too_old(messages: Vec<RemoteMessage>, sealed_at: Timestamp) -> Vec<RemoteReceipt> {
    let refusal = format!("it was on its way since {sealed_at} by the clock of its machine, which is too long");
    messages.into_iter().map(|message| expired(message.id, Some(refusal.clone()))).collect()
}
