//! The MCP server of one session: four tools, the client's inbox, the channel, the session's facts.
//!
//! The handshake is answered at once, whether or not the broker is there. A message counts as handed over only when the answer
//! that carries it has been written (`mail`). Nothing polls: the process sleeps until stdin, the broker or a signal wakes it, and
//! it ends with its client.
//!
//! One thread runs everything. Locks are `std` mutexes around small maps and queues, never held across an `.await`; only stdout has
//! an asynchronous lock, so that lines never mix.

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
mod transport;
mod words;

use acknowledge::Acknowledger;
use channel::Channel;
use door::Door;
use link::Link;
use log::log;
use mail::Mailbox;
use rmcp::{ServiceExt, service::ServerInitializeError};
use server::Server;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::SetOnce, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tools::Tools;
use transport::ClientTransport;

/// How long the end waits for the last acknowledgements. The broker hands over again what it does not hear of.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How long the end waits for the broker to take the peer off the list; without that, the broker notices by itself.
const FAREWELL_PATIENCE: Duration = Duration::from_millis(500);

/// Set once the client is initialized, which opens the channel and the inbox.
type Initialized = Arc<SetOnce<()>>;

/// Serves the session until its client is gone: stdin has ended, the parent process has died, or a signal came.
pub async fn run() {
    let parent = crate::platform::process::parent();
    let (reader, writer) = stdio::open();
    let link = Arc::new(Link::default());
    let acknowledger = Arc::new(Acknowledger::default());
    let initialized = Initialized::default();
    let mail = Arc::new(Mailbox::new(link.clone(), acknowledger.clone()));
    let door = Door::new(link.clone(), acknowledger.clone(), initialized.clone());
    let channel = Channel::new(writer.clone(), acknowledger.clone(), initialized.clone());
    let (end, closing) = (CancellationToken::new(), CancellationToken::new());

    let (mut following, mut beside) = (JoinSet::new(), JoinSet::new());
    following.spawn({
        let (link, mail) = (link.clone(), mail.clone());
        async move { link.run(parent, &channel, &mail).await }
    });
    following.spawn(async move { door.run().await });
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
            log!("ending: {}", ending::wait(parent).await);
            closing.cancel();
            end.cancel();
        }
    });

    let transport = ClientTransport::new(reader, writer, mail.clone(), link.clone(), closing.clone());
    let server = Server::new(Tools::new(link.clone(), mail.clone()), mail.clone(), initialized, closing);
    match server.serve_with_ct(transport, end).await {
        Ok(service) => {
            if let Err(error) = service.waiting().await {
                log!("serving: {error}");
            }
        }
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {}
        Err(error) => log!("opening the session: {error}"),
    }

    // Take no more messages: nobody would read them.
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

/// Locks `mutex`. The small maps and queues behind it stay valid whatever panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
