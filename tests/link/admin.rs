//! The administrator of the hub, who has all rights on it, with a bare client of NATS: for what the link does not do.

use crate::hub::Hub;
use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use std::{fs, time::Duration};

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
