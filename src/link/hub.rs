//! The hub: a NATS server with JetStream.

use super::{
    args::HubArgs,
    key,
    retry::PAUSE,
    subject::{self, STORED, STREAM},
};
use crate::wire::{self, Code, Error, MachineName};
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, ServerError,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self,
        consumer::{AckPolicy, pull},
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use std::time::Duration;
use tokio::sync::watch;

/// How long the stream keeps what nobody fetches: as long as a broker keeps undelivered messages by default.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long the stream remembers ids. A broker remembers them as long as its history.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long the hub waits for an acknowledgement before it hands a message out again.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How often the hub says on an idle pull that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long one pull lasts.
const PULL: Duration = Duration::from_secs(30);

/// A connection to the hub, which is opened again when it breaks.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    pub client: Client,
    /// Changes with each new connection.
    pub connected: watch::Receiver<()>,
    stream: jetstream::Context,
}

impl Hub {
    /// Connects; for `machine` only what its permissions allow.
    pub async fn connect(args: &HubArgs, machine: Option<&MachineName>) -> wire::Result<Self> {
        let seed = key::read(&args.key)?;
        let mut options = ConnectOptions::with_nkey(seed).name("claude-peers-link");
        let (connects, connected) = watch::channel(());
        options = options.event_callback(move |event| {
            if matches!(event, Event::Connected) {
                connects.send_replace(());
            }
            std::future::ready(())
        });
        if let Some(machine) = machine {
            options = options.custom_inbox_prefix(format!("_INBOX_{machine}")).retry_on_initial_connect();
        }
        let client = options.connect(&args.hub).await.map_err(|error| {
            Error::new(Code::Unreachable, format!("connecting to {}: {error}", args.hub)).help("check the address and the key")
        })?;
        Ok(Self { stream: jetstream::new(client.clone()), client, connected })
    }

    /// Creates the stream, or brings it up to date.
    pub async fn prepare(&self) -> wire::Result<()> {
        let config = Config {
            name: STREAM.to_owned(),
            subjects: vec![STORED.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_age: KEPT,
            duplicate_window: REMEMBERED,
            ..Config::default()
        };
        let made = self.stream.create_or_update_stream(config).await;
        made.map(drop).map_err(|error| {
            Error::new(Code::Internal, format!("creating the stream {STREAM}: {error}"))
                .help("use a key that may, on a hub with JetStream")
        })
    }

    /// Stores something under an id that the stream takes once. Returns when the stream has it; tries until then.
    pub async fn store(&self, subject: &str, id: &str, payload: Vec<u8>) {
        let payload = bytes::Bytes::from(payload);
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, id);
            let published =
                async { self.stream.publish_with_headers(subject.to_owned(), headers, payload.clone()).await?.await.map(drop) };
            match published.await {
                Ok(()) => return,
                Err(error) => tracing::warn!("storing {id} on the hub: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The largest payload that the hub takes. Known since the first connection, which this waits for.
    pub async fn largest(&self) -> usize {
        loop {
            match self.client.server_info().max_payload {
                0 => tokio::time::sleep(PAUSE).await,
                largest => return largest,
            }
        }
    }

    /// What is stored for `machine`, one after the other: the next comes when the one before is acknowledged.
    ///
    /// The consumer is made anew each time. It has no state worth keeping, because what is not acknowledged is in the stream. A killed hub
    /// may have lost an acknowledgement of which the stream knows; the old consumer would then wait for a message that is gone, for ever.
    pub async fn incoming(&self, machine: &MachineName) -> Result<pull::Stream, ServerError> {
        let config = pull::Config {
            durable_name: Some(machine.to_string()),
            filter_subject: subject::for_machine(machine),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 1,
            ..pull::Config::default()
        };
        let failed = |error: &dyn std::fmt::Display| ServerError::Other(error.to_string());
        if let Err(error) = self.stream.delete_consumer_from_stream(machine.as_str(), STREAM).await {
            tracing::debug!("no consumer to replace: {error}");
        }
        let consumer = self.stream.create_consumer_on_stream(config, STREAM).await.map_err(|error| failed(&error))?;
        consumer.stream().heartbeat(HEARTBEAT).expires(PULL).messages().await.map_err(|error| failed(&error))
    }
}

/// The value as JSON for the hub.
pub(super) fn written(value: &impl serde::Serialize) -> wire::Result<Vec<u8>> {
    let unwritable = |error: serde_json::Error| Error::new(Code::Internal, format!("writing JSON: {error}"));
    serde_json::to_vec(value).map_err(unwritable)
}
