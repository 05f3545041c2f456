//! From the hub to the broker.

use super::{
    ends::Link,
    retry::{PAUSE, until_answered},
    subject::{self, Kind},
};
use crate::wire::{
    self, Acknowledged, Confirm, MachineName, MessageState, Receive, Received, RemoteMessage, RemoteReceipt, text::printable_line,
};
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;

impl Link {
    /// Hands what is stored for this machine to the broker, and acknowledges it, again and again.
    pub(super) async fn receive_incoming(&self) {
        let mut connected = self.hub.connected.clone();
        loop {
            connected.mark_unchanged();
            let mut incoming = match self.hub.incoming(&self.machine).await {
                Ok(incoming) => incoming,
                Err(error) => {
                    tracing::warn!("asking the hub for mail: {error}; `claude-peers-link prepare` creates the stream");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // An error ends the pull, and so does a new connection. The next asks anew.
            loop {
                let message = tokio::select! {
                    message = incoming.next() => message,
                    _ = connected.changed() => break,
                };
                match message {
                    Some(Ok(message)) => self.take_in(&message).await,
                    Some(Err(error)) => {
                        tracing::debug!("waiting for mail on the hub: {error}");
                        break;
                    }
                    None => break,
                }
            }
        }
    }

    /// Hands one message or receipt to the broker, and then acknowledges it.
    async fn take_in(&self, message: &Message) {
        let kind = match self.hand_over(message).await {
            Ok(()) => AckKind::Ack,
            Err(error) => {
                let subject = printable_line(&message.subject);
                tracing::error!(code = %error.code, "{subject} is dropped: {}", printable_line(&error.message));
                AckKind::Term
            }
        };
        // Without it, the hub hands the message out again, and the broker knows it by its id.
        if let Err(error) = message.ack_with(kind).await {
            tracing::warn!("acknowledging to the hub: {error}");
        }
    }

    async fn hand_over(&self, message: &Message) -> wire::Result<()> {
        let (from, kind) = subject::stored(&message.subject).ok_or_else(|| unreadable("its subject is none of ours"))?;
        match kind {
            Kind::Mail => self.receive(from, read(&message.payload)?).await,
            Kind::Receipt => {
                let confirm = Confirm { machine: from, receipts: vec![read(&message.payload)?] };
                let tell = async || self.broker.post::<Acknowledged>("/v1/gateway/confirm", None, &confirm).await;
                until_answered(tell).await.map(drop)
            }
        }
    }

    /// Hands a message to the broker. If that refuses it, its sender is told.
    async fn receive(&self, from: MachineName, message: RemoteMessage) -> wire::Result<()> {
        let receive = Receive { machine: from, message };
        let hand = async || self.broker.post::<Received>("/v1/gateway/receive", None, &receive).await;
        let refusal = match until_answered(hand).await {
            Ok(Received { id: Some(_) }) => return Ok(()),
            Ok(Received { id: None }) => None,
            Err(refused) => Some(refused.message),
        };
        let receipt = RemoteReceipt { id: receive.message.id, state: MessageState::Expired, route: None, refusal };
        self.store_receipt(&receive.machine, &receipt).await
    }
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> wire::Result<T> {
    serde_json::from_slice(payload).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(why: &str) -> wire::Error {
    wire::Error::new(wire::Code::InvalidRequest, format!("it cannot be read: {why}"))
}
