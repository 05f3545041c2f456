//! The MCP server of one session: four tools, the client's inbox, the channel, the session's facts.
//!
//! Promises: the handshake is answered at once, whether or not the broker is there; everything else runs beside it. A
//! message counts as handed over only after the answer that carries it has been written (`mail`). Nothing polls: the
//! process sleeps until stdin, the broker or a signal wakes it, and ends with its client.
//!
//! One thread runs everything (the runtime is `current_thread`). Locks are `std` mutexes around small maps and queues, and
//! none is held across an `.await`; stdout alone has a lock that waits, so that lines never mix.

mod acknowledge;
mod answers;
mod channel;
mod controls;
mod door;
mod ending;
mod facts;
mod link;
mod listing;
mod log;
mod mail;
mod server;
mod stdio;
mod summary;
mod tools;
mod words;

use acknowledge::Acknowledger;
use channel::Channel;
use door::Door;
use link::Link;
use log::log;
use mail::Mailbox;
use rmcp::ServiceExt;
use server::{Pushes, Server};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long the end waits for the broker to take note of what was handed over. What it misses then is handed over again.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How long the end waits for the broker to take the peer off the list, which it otherwise finds out by itself.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(500);

/// Serves the session until its client is gone: stdin has ended, the parent process has died, or a signal asked for it.
pub async fn run() {
    let parent = crate::platform::process::parent();
    let (reader, writer) = stdio::open();
    let link = Arc::new(Link::default());
    let acknowledger = Arc::new(Acknowledger::default());
    let mail = Arc::new(Mailbox::new(link.clone(), acknowledger.clone()));
    let door = Arc::new(Door::new(link.clone(), acknowledger.clone()));
    let channel = Arc::new(Channel::new(writer.clone(), acknowledger.clone()));
    let (end, closing) = (CancellationToken::new(), CancellationToken::new());

    let mut following = JoinSet::new();
    following.spawn({
        let (link, mail, channel) = (link.clone(), mail.clone(), channel.clone());
        async move { link.run(parent, &channel, &mail).await }
    });
    following.spawn({
        let door = door.clone();
        async move { door.run().await }
    });
    let mut beside = JoinSet::new();
    beside.spawn({
        let (acknowledger, link) = (acknowledger.clone(), link.clone());
        async move { acknowledger.run(&link).await }
    });
    beside.spawn({
        let link = link.clone();
        async move { summary::run(&link).await }
    });
    beside.spawn({
        let (end, closing) = (end.clone(), closing.clone());
        async move {
            let reason = ending::wait(parent).await;
            log!("ending: {reason}");
            closing.cancel();
            end.cancel();
        }
    });

    let transport = stdio::Stdio::new(reader, writer, mail.clone(), link.clone(), closing.clone());
    let server = Server::new(link.clone(), mail.clone(), Pushes { channel, door }, closing);
    match server.serve_with_ct(transport, end).await {
        Ok(service) => {
            if let Err(error) = service.waiting().await {
                log!("serving: {error}");
            }
        }
        Err(rmcp::service::ServerInitializeError::ConnectionClosed(_) | rmcp::service::ServerInitializeError::Cancelled) => {}
        Err(error) => log!("opening the session: {error}"),
    }

    // No new messages from here on: nobody would read them.
    following.shutdown().await;
    mail.close();
    beside.shutdown().await;
    if timeout(FLUSH_PATIENCE, acknowledger.flush(&link)).await.is_err() {
        log!("ending: the broker did not take note in time of what was handed over");
    }
    if timeout(FAREWELL_PATIENCE, link.unregister()).await.is_err() {
        log!("ending: the broker did not answer the farewell in time");
    }
}

/// Locks `mutex`. A panic elsewhere does not make the small maps and queues behind it wrong.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
