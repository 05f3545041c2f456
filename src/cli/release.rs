//! `release`: delivers a message that the recipient's controls hold.

use crate::{
    client::Client,
    console::{exit::Failure, out::Out},
    wire::{Acknowledged, MessageId},
};

/// Which message.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The message's id, as `message` and `history` show it
    pub id: MessageId,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let path = format!("/v1/messages/{}/release", args.id);
    let released: Acknowledged = broker.post(&path, None, &serde_json::json!({})).await?;
    out.answer(&released, |_, _| format!("Message {} is released; its session gets it like any other.\n", args.id))
}
