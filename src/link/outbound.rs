//! From the broker to the hub.

use super::{
    ends::Link,
    hub::written,
    retry::{PAUSE, until_answered},
    subject::{self, Kind},
};
use crate::wire::{
    self, Acknowledged, Confirm, Forwarded, MachineName, MessageState, Outgoing, OutgoingMessage, OutgoingReceipt, RemoteMessage,
    RemoteReceipt, TakeOutgoing, Told,
};
use std::time::Duration;

/// How long one take waits.
const WAIT: Duration = Duration::from_secs(3_600);

impl Link {
    /// Takes what has to go to other machines, stores it on the hub, and acknowledges it, again and again.
    pub(super) async fn send_outgoing(&self) {
        loop {
            if let Err(error) = self.send_some().await {
                tracing::error!(code = %error.code, "the broker: {}", error.message);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn send_some(&self) -> wire::Result<()> {
        let request = TakeOutgoing { wait_seconds: u32::try_from(WAIT.as_secs()).ok() };
        let take = || self.broker.post_waiting::<Outgoing>("/v1/gateway/take", None, &request, WAIT);
        let Outgoing { messages, receipts } = until_answered(async || take().await).await?;
        let mut stored = Forwarded { messages: Vec::new(), receipts: Vec::new() };
        for OutgoingMessage { machine, message } in messages {
            if self.store_message(&machine, &message).await? {
                stored.messages.push(message.id);
            }
        }
        for OutgoingReceipt { machine, id, receipt } in receipts {
            self.store_receipt(&machine, &receipt).await?;
            stored.receipts.push(Told { id, state: receipt.state });
        }
        let acknowledge = async || self.broker.post::<Acknowledged>("/v1/gateway/acknowledge", None, &stored).await;
        until_answered(acknowledge).await.map(drop)
    }

    /// Stores a message for `machine`. One that is too large for the hub is refused here; returns whether it was stored.
    async fn store_message(&self, machine: &MachineName, message: &RemoteMessage) -> wire::Result<bool> {
        let (payload, id) = (written(message)?, &message.id);
        let largest = self.hub.largest().await;
        if payload.len() > largest {
            let refusal = Some(format!("it takes {} bytes on its way, and the hub takes {largest} at most", payload.len()));
            let receipt = RemoteReceipt { id: id.clone(), state: MessageState::Expired, route: None, refusal };
            let confirm = Confirm { machine: machine.clone(), receipts: vec![receipt] };
            let refuse = async || self.broker.post::<Acknowledged>("/v1/gateway/confirm", None, &confirm).await;
            until_answered(refuse).await?;
            return Ok(false);
        }
        let subject = subject::between(&self.machine, machine, Kind::Mail);
        self.hub.store(&subject, &format!("{}/{id}", self.machine), payload).await;
        Ok(true)
    }

    /// Stores a receipt for `machine`.
    pub(super) async fn store_receipt(&self, machine: &MachineName, receipt: &RemoteReceipt) -> wire::Result<()> {
        let subject = subject::between(&self.machine, machine, Kind::Receipt);
        let id = format!("{}/{machine}/{}/{}", self.machine, receipt.id, receipt.state);
        self.hub.store(&subject, &id, written(receipt)?).await;
        Ok(())
    }
}
