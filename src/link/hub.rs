//! The hub: a NATS server with JetStream.

use super::{
    directory::Signed,
    report::{Context, json},
    retry::PAUSE,
    subject::{self, DIRECTORY, STORED, STREAM},
};
use crate::{
    platform::clock,
    wire::{self, Code, Error, MachineName},
};
use async_nats::{
    Client, HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{
        self, ErrorCode,
        consumer::{AckPolicy, pull},
        context::{ConsumerInfoErrorKind, CreateStreamError, CreateStreamErrorKind, PublishError},
        stream::{Config, DirectGetErrorKind, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use std::{error::Error as _, time::Duration};
use time::OffsetDateTime;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// How long the stream keeps what nobody fetches: as long as a broker keeps undelivered messages by default.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long the stream remembers ids. A broker remembers them as long as its history.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The most bytes that wait on the hub for all machines.
const MOST_BYTES: i64 = 1 << 30;
/// How long the hub waits for an acknowledgement before it hands a letter out again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often the hub says on an idle pull that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long one pull lasts.
const PULL: Duration = Duration::from_secs(30);

/// A connection to the hub, which is opened again when it breaks.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    pub client: Client,
    /// Changes with each new connection and each loss.
    pub state: watch::Receiver<Connection>,
    pub stream: jetstream::Context,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connection {
    /// There has been none yet.
    Connecting,
    Connected,
    /// Why there is none.
    Lost(String),
}

/// The letters for a machine.
pub(super) struct Incoming {
    pub letters: pull::Stream,
    /// When they began, by the hub's clock, in milliseconds since 1970.
    created: i64,
    /// The same by a clock that nobody sets.
    began: Instant,
}

impl Incoming {
    /// How far this machine's clock is ahead of the hub's, in milliseconds. Someone may have set it since the letters began.
    pub fn ahead(&self) -> i64 {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        clock::now().as_millis().saturating_sub(self.created.saturating_add(passed))
    }
}

impl Connection {
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }
}

/// What became of a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Yes,
    /// The hub has no room; its words.
    Full(String),
}

impl Hub {
    /// Creates the streams, or brings them up to date. `replicas` servers of a cluster keep what is stored. `Busy` while the
    /// cluster has no leader.
    pub async fn prepare(&self, replicas: usize) -> wire::Result<()> {
        let mail = Config {
            name: STREAM.to_owned(),
            subjects: vec![STORED.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            max_age: KEPT,
            max_bytes: MOST_BYTES,
            duplicate_window: REMEMBERED,
            num_replicas: replicas,
            ..Config::default()
        };
        let directory = Config {
            name: DIRECTORY.to_owned(),
            subjects: vec![DIRECTORY.to_owned()],
            storage: StorageType::File,
            // Not `max_messages`: a machine can have the hub deliver its own mail here, under the subject of that mail, and this must displace
            // nothing.
            max_messages_per_subject: 1,
            allow_direct: true,
            num_replicas: replicas,
            ..Config::default()
        };
        for config in [mail, directory] {
            let name = config.name.clone();
            let made = self.stream.create_or_update_stream(config).await;
            made.map_err(|error| {
                let code = if passes(&error) { Code::Busy } else { Code::Internal };
                Error::new(code, format!("creating the stream {name}: {error}")).help(
                    "the hub must be a NATS server with JetStream, version 2.9.10 or later, and the key must be its owner's",
                )
            })?;
        }
        Ok(())
    }

    /// Stores a letter under an id that the stream takes once. Returns when the stream has it or has no room; tries until then. The letter is
    /// sealed for each try, because it says when that was.
    pub async fn store(&self, subject: &str, id: &str, seal: impl Fn() -> wire::Result<Vec<u8>>) -> wire::Result<Stored> {
        let (mut is_first, mut state) = (true, self.state.clone());
        loop {
            // Without a connection, the client would keep the letter and send it much later.
            if state.wait_for(Connection::is_connected).await.is_err() {
                std::future::pending::<()>().await;
            }
            match self.store_once(subject, id, seal()?.into()).await {
                Ok(()) => return Ok(Stored::Yes),
                Err(error) => match full(&error) {
                    Some(cause) => return Ok(Stored::Full(cause)),
                    None if std::mem::take(&mut is_first) => {
                        tracing::warn!("storing a letter on the hub: {error}; trying again until it works");
                    }
                    None => {}
                },
            }
            sleep(PAUSE).await;
        }
    }

    async fn store_once(&self, subject: &str, id: &str, payload: bytes::Bytes) -> Result<(), PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id);
        self.stream.publish_with_headers(subject.to_owned(), headers, payload).await?.await.map(drop)
    }

    /// The largest payload that the hub takes. Known since the first connection, which this waits for.
    pub async fn largest(&self) -> usize {
        loop {
            match self.client.server_info().max_payload {
                0 => sleep(PAUSE).await,
                largest => return largest,
            }
        }
    }

    /// The letters for `machine`, one after the other: the next comes when the one before is acknowledged.
    ///
    /// The consumer is made anew each time. It has no state worth keeping, because what is not acknowledged is in the stream. A killed hub
    /// may have lost an acknowledgement of which the stream knows; the old consumer would then wait for a message that is gone, for ever.
    pub async fn incoming(&self, machine: &MachineName) -> wire::Result<Incoming> {
        let config = pull::Config {
            durable_name: Some(machine.to_string()),
            filter_subject: subject::mail_for(machine),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 1,
            ..pull::Config::default()
        };
        let doing = "asking the hub for mail";
        self.delete_consumer(machine).await;
        let consumer = self.stream.create_consumer_on_stream(config, STREAM).await.local(doing)?;
        let created = millis(consumer.cached_info().created);
        let began = Instant::now();
        let letters = consumer.stream().heartbeat(HEARTBEAT).expires(PULL).messages().await.local(doing)?;
        Ok(Incoming { letters, created, began })
    }

    /// How many letters wait on the hub for `machine`; none if its link has never fetched any.
    pub async fn waiting(&self, machine: &MachineName) -> wire::Result<Option<u64>> {
        let doing = "asking the hub for mail";
        let stream = self.stream.get_stream_no_info(STREAM).await.local(doing)?;
        match stream.consumer_info(machine.as_str()).await {
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            info => info.map(|info| Some(info.num_pending + info.num_ack_pending as u64)).local(doing),
        }
    }

    /// Forgets a machine that was revoked: its consumer could still hand something out, and nobody opens the letters to it.
    pub async fn forget(&self, machine: &MachineName) -> wire::Result<()> {
        self.delete_consumer(machine).await;
        let purge = async {
            let stays = format!("{machine} is removed, but its letters stay on the hub");
            let stream = self.stream.get_stream_no_info(STREAM).await.local(&stays)?;
            for letters in [subject::mail_for(machine), subject::mail_from(machine)] {
                stream.purge().filter(letters).await.local(&stays)?;
            }
            Ok(())
        };
        purge.await.map_err(|error: Error| error.help(format!("repeat `claude-peers link revoke {machine}`")))
    }

    async fn delete_consumer(&self, machine: &MachineName) {
        if let Err(error) = self.stream.delete_consumer_from_stream(machine.as_str(), STREAM).await {
            tracing::debug!("no consumer to delete: {error}");
        }
    }

    /// The directory that the hub hands out; none if it has none.
    pub async fn directory(&self) -> wire::Result<Option<Signed>> {
        let doing = "fetching the directory of machines";
        let stream = self.stream.get_stream_no_info(DIRECTORY).await.context(Code::Unreachable, doing)?;
        match stream.direct_get_last_for_subject(DIRECTORY).await {
            Ok(message) => serde_json::from_slice(&message.payload).map(Some).context(Code::Unreachable, doing),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(Code::Unreachable, doing),
        }
    }

    /// Publishes something that is stored nowhere. Returns when the hub has it. `doing` is for the error.
    pub async fn say(&self, subject: String, payload: Vec<u8>, doing: &str) -> wire::Result<()> {
        self.client.publish(subject, payload.into()).await.context(Code::Unreachable, doing)?;
        self.client.flush().await.context(Code::Unreachable, doing)
    }

    pub async fn publish_directory(&self, directory: &Signed) -> wire::Result<()> {
        let doing = "storing the directory of machines on the hub";
        let stored = self.stream.publish(DIRECTORY, json(directory)?.into()).await.context(Code::Unreachable, doing)?;
        stored.await.map(drop).context(Code::Unreachable, doing)
    }
}

/// When the hub stored a letter, by its clock, in milliseconds since 1970.
pub(super) fn stored_at(message: &jetstream::Message) -> wire::Result<i64> {
    message.info().map(|info| millis(info.published)).context(Code::InvalidRequest, "the hub does not say when it stored it")
}

fn millis(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().saturating_mul(1_000).saturating_add(i64::from(time.millisecond()))
}

/// Whether a cluster may be able to create a stream later.
fn passes(error: &CreateStreamError) -> bool {
    let not_yet = [ErrorCode::CLUSTER_NOT_AVAILABLE, ErrorCode::CLUSTER_NO_PEERS, ErrorCode::CLUSTER_NOT_LEADER];
    match error.kind() {
        CreateStreamErrorKind::TimedOut => true,
        CreateStreamErrorKind::JetStream(cause) => not_yet.contains(&cause.error_code()),
        _ => false,
    }
}

/// The hub's words, if it has no room.
fn full(error: &PublishError) -> Option<String> {
    let cause = error.source()?.downcast_ref::<jetstream::Error>()?;
    let is_full = [
        ErrorCode::STREAM_STORE_FAILED,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
    ]
    .contains(&cause.error_code());
    is_full.then(|| cause.to_string())
}
