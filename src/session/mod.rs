//! The MCP server of one session: four tools, the client's inbox, the channel, the session's facts.
//!
//! The handshake is answered at once, with or without a broker. A message counts as handed over only once its answer has been
//! written (`mail`). On Linux nothing polls while nothing happens: the process sleeps until stdin, the broker or a signal wakes it. It ends
//! with its client.
//!
//! One thread runs everything. Locks are never held across an `.await`, except the asynchronous lock on stdout, which keeps lines
//! whole.

mod acknowledge;
mod answers;
mod channel;
mod controls;
mod door;
mod doors;
mod ending;
mod facts;
mod follow;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod link;
mod listing;
mod log;
mod mail;
mod progress;
mod published;
mod server;
mod stdio;
mod summary;
mod tools;
mod transport;
mod words;

use crate::platform::{children, process};
use acknowledge::Acknowledger;
use channel::Channel;
use follow::Follower;
use link::Link;
use log::log;
use mail::Mailbox;
use rmcp::{ServiceExt, service::ServerInitializeError};
use server::Server;
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tools::Tools;
use transport::ClientTransport;

/// How long shutdown waits for the last acknowledgements. The broker hands unacknowledged messages over again.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How long shutdown waits for the broker to deregister the peer. Otherwise the broker notices by itself.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(500);

/// Serves the session until its client is gone: stdin has ended, the parent process has died, or a signal came.
pub async fn run() {
    let parent = process::parent();
    if let Err(error) = children::expect() {
        log!("handling SIGCHLD: {error}");
    }
    let (reader, writer) = stdio::open();
    let link = Arc::new(Link::default());
    let acknowledger = Arc::new(Acknowledger::default());
    let mail = Arc::new(Mailbox::new(link.clone(), acknowledger.clone()));
    let channel = Channel::new(writer.clone(), acknowledger.clone());
    let end = CancellationToken::new();

    let (mut following, mut beside) = (JoinSet::new(), JoinSet::new());
    following.spawn(Follower { link: link.clone(), channel, mail: mail.clone(), secret: None }.run(parent));
    following.spawn(door::run(link.clone(), acknowledger.clone()));
    beside.spawn({
        let (acknowledger, link) = (acknowledger.clone(), link.clone());
        async move { acknowledger.run(&link).await }
    });
    beside.spawn(summary::run(link.clone()));
    beside.spawn({
        let end = end.clone();
        async move {
            log!("ending: {}", ending::wait(parent).await);
            end.cancel();
        }
    });

    let transport = ClientTransport::new(reader, writer.clone(), mail.clone(), link.clone(), end.clone());
    let server = Server { tools: Tools { link: link.clone(), mail: mail.clone() }, out: writer };
    match server.serve_with_ct(transport, end).await {
        Ok(service) => {
            if let Err(error) = service.waiting().await {
                log!("serving: {error}");
            }
        }
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {}
        Err(error) => log!("opening the session: {error}"),
    }

    // Takes no more messages, because the client is gone.
    following.shutdown().await;
    mail.close();
    beside.shutdown().await;
    if timeout(FLUSH_PATIENCE, acknowledger.flush(&link)).await.is_err() {
        log!("ending: the broker did not acknowledge in time what was handed over");
    }
    if timeout(FAREWELL_PATIENCE, link.unregister()).await.is_err() {
        log!("ending: the broker did not unregister the session in time");
    }
}
