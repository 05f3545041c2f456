//! The link to the broker: keeps this session registered and its event stream open, and carries the calls of the tools.
//!
//! Promises: a broker that is away is tried again with growing pauses, at once when a tool needs it, and a restart of it is
//! no error: calls wait for its return. While the stream is open nothing here wakes up by itself. Every call may be said
//! twice (the protocol's idempotency keys and leases), so a call that was cut off is repeated. Where a client runs two servers
//! for one session, the newer serves it, and the older stands by: it takes the session over when a call comes to it, or when
//! the other is gone, and never else, so that the two do not push each other out without end.

use super::{
    channel::Channel,
    facts::{self, Inbox, Session},
    log,
    mail::Mailbox,
};
use crate::{
    client::{Client, START_HELP},
    platform::paths,
    wire::{Code, Error, Inbound, Registered, Result},
};
use serde::{Serialize, de::DeserializeOwned};
use sse_stream::SseStream;
use std::{path::Path, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, SetOnce, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::StreamExt;

/// How long a call waits for the broker to come back: longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting call has the link try again.
const NUDGE: Duration = Duration::from_millis(100);
/// The first pause after a lost connection: a broker behind a waiting socket is back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// When an inbox that is not there is looked for again, at first; then ever later.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// A registration with a broker that is there.
pub struct Up {
    client: Client,
    inbox: Option<Inbox>,
    /// Who this session is.
    pub me: Registered,
}

impl Up {
    /// `POST path` as this session, once: whoever asks sees to it that it is said again.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.client.post(path, Some(&self.me.secret), body).await
    }

    /// The same, for a request that the broker answers up to `wait` later on purpose.
    pub async fn post_waiting<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, wait: Duration) -> Result<T> {
        self.client.post_waiting(path, Some(&self.me.secret), body, wait).await
    }

    /// The broker's socket.
    pub fn socket(&self) -> &Path {
        self.client.socket()
    }
}

#[derive(Clone)]
enum State {
    /// Not registered, or not any more; with the reason once there is one.
    Down(Option<Error>),
    Up(Arc<Up>),
    /// This process will not be served, whatever the broker does.
    Over(Error),
}

/// Why a stream is not to be followed any more.
enum End {
    /// The session has ended, or the process that served it instead of this one.
    Ended,
    /// It is to register anew: another process serves this session, and this one has a call for it; or its inbox is there now.
    Again,
}

/// The link of one session.
pub struct Link {
    state: watch::Sender<State>,
    nudged: Notify,
    /// What the client says its name and its version are.
    client: SetOnce<(String, String)>,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: watch::Sender::new(State::Down(None)), nudged: Notify::new(), client: SetOnce::new() }
    }
}

/// Whether the error may be gone a moment later without anybody doing anything.
pub fn mends_itself(error: &Error) -> bool {
    // An unknown secret mends itself too: the link registers anew.
    use Code::{Busy, DatabaseMoved, RequestTimeout, Stopping, Unauthorized, Unreachable};
    matches!(error.code, Unreachable | Stopping | DatabaseMoved | Busy | RequestTimeout | Unauthorized)
}

impl Link {
    /// The client has said its name and its version.
    pub fn client_is(&self, name: &str, version: &str) {
        let _ = self.client.set((name.to_owned(), version.to_owned())); // only what it says first counts
    }

    /// Keeps the session registered, once its client has said who it is. `parent` is the process that started this one.
    pub async fn run(&self, parent: Option<u32>, channel: &Channel, mail: &Mailbox) {
        let (client, version) = self.client.wait().await;
        let session = match Session::new(client, version, parent) {
            Ok(session) => session,
            Err(error) => {
                log!("{error}");
                self.state.send_replace(State::Over(error));
                return;
            }
        };
        let mut secret = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.follow(&session, &mut secret, channel, mail).await {
                Ok(End::Again) => continue,
                Ok(End::Ended) => {
                    // The end of this process is near; should the session live on, its next call brings it back.
                    log!("the session has ended");
                    self.state.send_replace(State::Down(Some(lost(&"the session has ended"))));
                    _ = timeout(LONGEST_PAUSE, self.nudged.notified()).await;
                    continue;
                }
                Err(error) => error,
            };
            if self.current().is_some() {
                pause = FIRST_PAUSE;
            }
            if !self.is_down_for(&error) {
                log!("{error}");
            }
            pause = if mends_itself(&error) { pause } else { LONGEST_PAUSE };
            self.state.send_replace(State::Down(Some(error)));
            tokio::select! {
                () = sleep(spread(pause)) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.nudged.notified() => {}
            }
        }
    }

    /// Registers and follows the event stream, standing by while another process serves the session; an error when it breaks off.
    async fn follow(&self, session: &Session, secret: &mut Option<String>, channel: &Channel, mail: &Mailbox) -> Result<End> {
        // Looked for each time: the user's runtime directory may come to be there after the session.
        let client = Client::new(paths::socket().map_err(facts::unusable)?, facts::PROGRAM);
        let (facts, inbox) = session.facts().await?;
        let me: Registered = match client.post("/v1/register", secret.as_deref(), &facts).await {
            Err(error) if error.code == Code::Unauthorized && secret.is_some() => {
                client.post("/v1/register", None, &facts).await?
            }
            registered => registered?,
        };
        *secret = Some(me.secret.clone());
        // No cursor: the channel itself knows what it has pushed, whatever the order.
        let mut events = SseStream::new(client.stream("/v1/events", &me.secret).await?);
        log!("connected as {} ({}) to broker {}", me.name, me.id, me.broker_version);
        mail.mail_waits(); // perhaps: the broker says so only when something new comes
        self.state.send_replace(State::Up(Arc::new(Up { client, inbox: inbox.clone(), me })));
        // Whoever hurried this on has what it wanted: a nudge that is left over is none for a later time.
        pin!(self.nudged.notified()).as_mut().enable();
        let mut stands_by = false;
        let mut inbox_there = pin!(inbox_comes(session, inbox.is_some()));
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.nudged.notified(), if stands_by => return Ok(End::Again),
                () = &mut inbox_there, if !stands_by => return Ok(End::Again),
            };
            let event = event.ok_or_else(|| lost(&"the broker closed it"))?.map_err(|error| lost(&error))?;
            match (event.event.as_deref(), event.data) {
                (Some("message"), Some(data)) => channel.push(read(&data)?).await,
                (Some("waiting"), _) => mail.mail_waits(),
                (Some("displaced"), _) => {
                    log!("another process serves this session now");
                    self.state.send_replace(State::Down(Some(lost(&"another process serves this session now"))));
                    stands_by = true;
                }
                (Some("ended"), _) => return Ok(End::Ended),
                _ => {} // `ready`, and what a newer broker may say
            }
        }
    }

    /// Takes the session off the list of peers, if the broker is there.
    pub async fn unregister(&self) {
        if let Some(up) = self.current()
            && let Err(error) =
                up.client.post::<crate::wire::Done>("/v1/unregister", Some(&up.me.secret), &serde_json::json!({})).await
        {
            log!("unregistering: {error}");
        }
    }

    /// The registration, if the broker is there right now.
    pub fn current(&self) -> Option<Arc<Up>> {
        match &*self.state.borrow() {
            State::Up(up) => Some(up.clone()),
            _ => None,
        }
    }

    /// Waits until the session is registered and its client has an inbox; none if this process will not be served. Hurries nobody:
    /// where another process serves the session, that one writes.
    pub async fn with_inbox(&self) -> Option<(Arc<Up>, Inbox)> {
        let mut state = self.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(up) if up.inbox.is_some() => return up.inbox.clone().map(|inbox| (up.clone(), inbox)),
                State::Over(_) => return None,
                _ => {}
            }
            if state.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Waits until this registration holds no more.
    pub async fn leaves(&self, up: &Arc<Up>) {
        let holds = |state: &State| matches!(state, State::Up(now) if Arc::ptr_eq(now, up));
        // The sender lives as long as the link: an error cannot come.
        drop(self.state.subscribe().wait_for(|state| !holds(state)).await);
    }

    /// Waits until the session is registered, however long that takes.
    ///
    /// # Errors
    /// If this process will not be served.
    pub async fn up(&self) -> Result<Arc<Up>> {
        let mut state = self.state.subscribe();
        if matches!(&*state.borrow(), State::Down(_)) {
            self.nudged.notify_one(); // once: what does not succeed is tried again with pauses
        }
        loop {
            match &*state.borrow_and_update() {
                State::Up(up) => return Ok(up.clone()),
                State::Over(error) => return Err(error.clone()),
                State::Down(_) => {}
            }
            if state.changed().await.is_err() {
                return Err(lost(&"this process is ending"));
            }
        }
    }

    /// `GET path` as this session.
    pub async fn get<T: DeserializeOwned + Send>(&self, path: &str) -> Result<T> {
        self.get_waiting(path, Duration::ZERO).await
    }

    /// Like [`Link::get`], for a request that the broker answers up to `wait` later on purpose.
    pub async fn get_waiting<T: DeserializeOwned + Send>(&self, path: &str, wait: Duration) -> Result<T> {
        self.call(|up| async move { up.client.get_waiting(path, Some(&up.me.secret), wait).await }).await
    }

    /// `POST path` as this session.
    pub async fn post<T: DeserializeOwned + Send>(&self, path: &str, body: &(impl Serialize + Sync)) -> Result<T> {
        self.post_waiting(path, body, Duration::ZERO).await
    }

    /// Like [`Link::post`], for a request that the broker answers up to `wait` later on purpose.
    pub async fn post_waiting<T: DeserializeOwned + Send>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        wait: Duration,
    ) -> Result<T> {
        self.call(|up| async move { up.client.post_waiting(path, Some(&up.me.secret), body, wait).await }).await
    }

    async fn call<T, F: Future<Output = Result<T>> + Send>(&self, attempt: impl Fn(Arc<Up>) -> F) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let up = self.up_by(deadline).await?;
            match attempt(up).await {
                Err(error) if mends_itself(&error) && Instant::now() < deadline => sleep(FIRST_PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// Waits until `deadline` for the session to be registered, and has the link hurry.
    async fn up_by(&self, deadline: Instant) -> Result<Arc<Up>> {
        let mut state = self.state.subscribe();
        loop {
            let reason = match &*state.borrow_and_update() {
                State::Up(up) => return Ok(up.clone()),
                State::Over(error) => return Err(error.clone()),
                State::Down(reason) => reason.clone(),
            };
            self.nudged.notify_one();
            let now = Instant::now();
            match reason {
                Some(error) if now >= deadline || !mends_itself(&error) => return Err(error),
                None if now >= deadline => {
                    let what = "the claude-peers broker has not answered yet";
                    return Err(Error::new(Code::Unreachable, what).help(START_HELP));
                }
                // Either the state changes, or it is time to nudge again.
                _ => _ = timeout_at(deadline.min(now + NUDGE), state.changed()).await,
            }
        }
    }

    fn is_down_for(&self, error: &Error) -> bool {
        matches!(&*self.state.borrow(), State::Down(Some(reason)) if reason == error)
    }
}

/// Resolves when the inbox of the session's client, which was not there, is there.
async fn inbox_comes(session: &Session, is_there: bool) {
    let mut pause = FIRST_LOOK;
    while !is_there && session.awaits_inbox() {
        sleep(pause).await;
        if matches!(session.facts().await, Ok((_, Some(_)))) {
            return;
        }
        pause *= 2;
    }
    std::future::pending().await
}

fn lost(cause: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unreachable, format!("the connection to the claude-peers broker ended: {cause}")).help(START_HELP)
}

fn read(data: &str) -> Result<Inbound> {
    let garbled = |error| Error::new(Code::VersionMismatch, format!("a message from the broker cannot be read: {error}"));
    serde_json::from_str(data).map_err(garbled)
}

/// `pause`, up to a quarter longer: sessions that lost the broker together do not all come back in the same moment.
fn spread(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(1.0 + share / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_waits_for_a_broker_that_may_come_back_and_for_nothing_else() {
        let link = Link::default();
        let down = |code| State::Down(Some(Error::new(code, "no socket").help("start it")));
        link.state.send_replace(down(Code::VersionMismatch));
        let failed = link.get::<()>("/v1/status").await.expect_err("there is no broker");
        assert_eq!(failed.to_string(), "no socket; start it", "what does not mend itself is said at once");

        link.state.send_replace(down(Code::Unreachable));
        let call = link.get::<()>("/v1/status");
        let return_of_another = async {
            link.nudged.notified().await; // the call hurries the link
            link.state.send_replace(down(Code::VersionMismatch));
        };
        let (failed, ()) = tokio::join!(call, return_of_another);
        assert_eq!(failed.expect_err("there is no broker").code, Code::VersionMismatch);
    }
}
