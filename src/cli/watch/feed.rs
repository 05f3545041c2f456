//! The broker's stream of events, across its restarts.

use crate::{
    client::{Client, START_HELP},
    wire::{self, Code, Error, WatchEvent},
};
use futures_util::StreamExt;
use serde_json::json;
use sse_stream::{Sse, SseStream};
use std::{rc::Rc, time::Duration};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// The pauses between attempts to reach the broker: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How many events wait for a slow reader before the broker is made to wait.
const QUEUE: usize = 256;

/// What the stream tells.
#[derive(Debug)]
pub enum News {
    /// The stream is open; all peers come anew.
    Open,
    Event(Box<WatchEvent>),
    /// The broker is away, and is tried again until it is back.
    Away(Error),
    /// The last news: trying again does not help.
    Failed(Error),
}

/// Opens the stream. A broker that is away now is an error; one that goes away later is not.
pub async fn open(broker: Rc<Client>) -> wire::Result<Receiver<News>> {
    broker.hello().await?;
    let (news, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_local(async move {
        let _: Option<()> = follow(&broker, &news).await; // none if nobody reads any longer
    });
    Ok(receiver)
}

async fn follow(broker: &Client, news: &Sender<News>) -> Option<()> {
    let mut pause = PAUSES.0;
    loop {
        let error = match broker.stream("/v1/watch", None).await {
            Ok(body) => {
                pause = PAUSES.0;
                news.send(News::Open).await.ok()?;
                let mut events = SseStream::new(body);
                loop {
                    match events.next().await {
                        Some(Ok(event)) => match read(event) {
                            Ok(Some(event)) => news.send(News::Event(event.into())).await.ok()?,
                            Ok(None) => {}
                            Err(error) => return news.send(News::Failed(error)).await.ok(),
                        },
                        Some(Err(error)) => break lost(&error),
                        None => break lost(&"the broker closed it"),
                    }
                }
            }
            Err(error) if mends_itself(&error) => error,
            Err(error) => return news.send(News::Failed(error)).await.ok(),
        };
        news.send(News::Away(error)).await.ok()?;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// The event; none if it is one of a newer broker.
fn read(Sse { event, data, .. }: Sse) -> wire::Result<Option<WatchEvent>> {
    let (Some(event), Some(data)) = (event, data) else { return Ok(None) };
    if !["peer", "ready", "left", "message", "missed"].contains(&event.as_str()) {
        return Ok(None);
    }
    let garbled = |error| Error::new(Code::VersionMismatch, format!("an event of the broker cannot be read: {error}"));
    let data: serde_json::Value = serde_json::from_str(&data).map_err(garbled)?;
    serde_json::from_value(json!({ "event": event, "data": data })).map(Some).map_err(garbled)
}

/// Whether the broker may answer again soon.
pub fn mends_itself(error: &Error) -> bool {
    matches!(error.code, Code::Unreachable | Code::Stopping | Code::Busy | Code::DatabaseMoved | Code::DatabaseLocked)
}

fn lost(cause: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unreachable, format!("the connection to the claude-peers broker ended: {cause}")).help(START_HELP)
}
