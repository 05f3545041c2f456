//! `release`: delivers a message that the recipient's controls hold.

use super::candidates;
use crate::{
    client::Client,
    console::{Failure, Out},
    wire::{Acknowledged, MessageRef},
};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The message: its id, as `message` and `history` show it, or its number alone (m1042)
    #[arg(add = candidates::held_messages())]
    pub id: MessageRef,
}

pub async fn run(args: Args, broker: &Client, out: Out) -> Result<(), Failure> {
    let path = format!("/v1/messages/{}/release", args.id);
    let released: Acknowledged = broker.post(&path, None, &json!({})).await?;
    out.answer(&released, |_, _| format!("Message {} is released; its session gets it like any other.\n", args.id))
}
