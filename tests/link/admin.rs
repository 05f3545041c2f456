//! The administrator of the hub, who has all rights on it, with a bare client of NATS: for what the link does not do.

use crate::hub::Hub;
use async_nats::{
    Client, ConnectOptions, HeaderMap,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use std::{fs, time::Duration};

/// The administrator, for a test without a runtime of its own.
#[allow(dead_code, reason = "not for the benchmark")]
pub struct Operator {
    pub runtime: tokio::runtime::Runtime,
    pub hub: jetstream::Context,
}

#[allow(dead_code, reason = "not for the benchmark")]
impl Operator {
    pub fn of(hub: &Hub) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let hub = runtime.block_on(async { jetstream::new(connect(hub, &[hub.address()]).await) });
        Self { runtime, hub }
    }

    /// The letter that was stored last on this subject.
    pub fn stored(&self, subject: &str) -> Bytes {
        self.runtime.block_on(async {
            let stream = self.hub.get_stream("claude-peers").await.unwrap();
            stream.get_last_raw_message_by_subject(subject).await.unwrap().payload
        })
    }

    /// Stores something.
    pub fn store(&self, subject: &str, payload: Bytes) {
        self.runtime.block_on(async {
            let stored = self.hub.publish_with_headers(subject.to_owned(), HeaderMap::new(), payload).await.unwrap();
            stored.await.unwrap();
        });
    }

    /// Lets the hub keep no more than this many bytes of letters.
    pub fn limit(&self, bytes: i64) {
        self.runtime.block_on(async {
            let mut config = self.hub.get_stream("claude-peers").await.unwrap().cached_info().config.clone();
            config.max_bytes = bytes;
            self.hub.update_stream(config).await.unwrap();
        });
    }
}

/// Connects as the administrator of `hub` to one of these addresses.
pub async fn connect(hub: &Hub, addresses: &[String]) -> Client {
    let seed = fs::read_to_string(hub.folder().join("admin.key")).unwrap().trim().to_owned();
    let options = ConnectOptions::with_nkey(seed).add_root_certificates(hub.folder().join("hub/ca.pem")).require_tls(true);
    options.retry_on_initial_connect().connect(addresses).await.unwrap()
}

#[allow(dead_code, reason = "the benchmark does")]
/// Creates a stream like that of the link, with so many replicas. Tries until the hub can.
pub async fn create_stream(client: &Client, name: &str, subjects: &str, replicas: usize) {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        duplicate_window: Duration::from_secs(600),
        num_replicas: replicas,
        ..Config::default()
    };
    while let Err(error) = jetstream::new(client.clone()).create_or_update_stream(config.clone()).await {
        eprintln!("creating the stream {name}: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
