//! The link to the broker: keeps this session registered, follows its event stream and carries the tools' calls.
//!
//! - The link reconnects with growing pauses, and at once when a tool needs the broker. Calls wait while it restarts.
//! - Nothing here wakes up by itself while the stream is open.
//! - Every call is safe to repeat (idempotency keys, leases), so a call that was cut off is repeated.
//! - If a client runs two servers for one session, the newer serves it and the older stands by. The older takes over only when
//!   a call comes to it or the newer is gone, so that they do not displace each other endlessly.

use super::{
    channel::Channel,
    facts::{self, Inbox, Session},
    log,
    mail::Mailbox,
};
use crate::{
    client::{Client, START_HELP},
    platform::paths,
    wire::{Code, Done, Error, Inbound, Registered, Result},
};
use serde::{Serialize, de::DeserializeOwned};
use sse_stream::SseStream;
use std::{path::Path, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, SetOnce, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::StreamExt;

/// For a call that the broker answers without waiting.
pub const AT_ONCE: Duration = Duration::ZERO;
/// How long a call waits for the broker to come back: longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting call makes the link try again.
const NUDGE: Duration = Duration::from_millis(100);
/// The first pause after a lost connection: a socket-activated broker is back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause before a missing inbox is looked for again; it doubles each time.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// A registration with a broker that is running.
pub struct Registration {
    client: Client,
    inbox: Option<Inbox>,
    /// Who this session is.
    pub me: Registered,
}

impl Registration {
    async fn get<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T> {
        self.client.get_waiting(path, Some(&self.me.secret), wait).await
    }

    /// `POST path` as this session, once. The broker may take `wait` to answer.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, wait: Duration) -> Result<T> {
        self.client.post_waiting(path, Some(&self.me.secret), body, wait).await
    }

    /// The broker's socket.
    pub fn socket(&self) -> &Path {
        self.client.socket()
    }
}

enum LinkState {
    /// Not registered; with the reason once there is one.
    Down(Option<Error>),
    Up(Arc<Registration>),
    /// This process cannot be served, whatever the broker does.
    Refused(Error),
}

impl LinkState {
    /// The registration, or why there will be none; nothing while that is open.
    fn settled(&self) -> Option<Result<Arc<Registration>>> {
        match self {
            Self::Down(_) => None,
            Self::Up(up) => Some(Ok(up.clone())),
            Self::Refused(error) => Some(Err(error.clone())),
        }
    }
}

/// Why an event stream is left.
enum End {
    /// The session has ended, or the process that served it instead of this one.
    Ended,
    /// To register again: a call came while another process served the session, or the inbox has appeared.
    Again,
}

/// The link of one session.
pub struct Link {
    state: watch::Sender<LinkState>,
    nudged: Notify,
    /// The client's name and version, as it gives them.
    client: SetOnce<(String, String)>,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: watch::Sender::new(LinkState::Down(None)), nudged: Notify::new(), client: SetOnce::new() }
    }
}

/// Whether the error may go away without anybody doing anything.
pub fn mends_itself(error: &Error) -> bool {
    // So may an unknown secret: the link registers again.
    use Code::{Busy, DatabaseMoved, RequestTimeout, Stopping, Unauthorized, Unreachable};
    matches!(error.code, Unreachable | Stopping | DatabaseMoved | Busy | RequestTimeout | Unauthorized)
}

impl Link {
    /// The client has given its name and its version.
    pub fn client_is(&self, name: &str, version: &str) {
        let _ = self.client.set((name.to_owned(), version.to_owned())); // the first time counts
    }

    /// Keeps the session registered, once its client has said who it is. `parent` is the process that started this one.
    pub async fn run(&self, parent: Option<u32>, channel: &Channel, mail: &Mailbox) {
        let (client, version) = self.client.wait().await;
        let session = match Session::new(client, version, parent) {
            Ok(session) => session,
            Err(error) => {
                log!("{error}");
                self.state.send_replace(LinkState::Refused(error));
                return;
            }
        };
        let mut secret = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.follow(&session, &mut secret, channel, mail).await {
                Ok(End::Again) => continue,
                Ok(End::Ended) => {
                    // This process is about to end; if the session lives on, its next call brings it back.
                    log!("the session has ended");
                    self.down(lost(&"the session has ended"));
                    _ = timeout(LONGEST_PAUSE, self.nudged.notified()).await;
                    continue;
                }
                Err(error) => error,
            };
            if self.current().is_some() {
                pause = FIRST_PAUSE;
            }
            if !matches!(&*self.state.borrow(), LinkState::Down(Some(reason)) if *reason == error) {
                log!("{error}");
            }
            pause = if mends_itself(&error) { pause } else { LONGEST_PAUSE };
            self.down(error);
            tokio::select! {
                () = sleep(spread(pause)) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.nudged.notified() => {}
            }
        }
    }

    /// Registers and follows the event stream, standing by while another process serves the session; an error if it breaks off.
    async fn follow(&self, session: &Session, secret: &mut Option<String>, channel: &Channel, mail: &Mailbox) -> Result<End> {
        // Looked up each time: the user's runtime directory may appear after the session.
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
        mail.mail_waits(); // perhaps: the broker announces only what comes from now on
        self.state.send_replace(LinkState::Up(Arc::new(Registration { client, inbox: inbox.clone(), me })));
        // Every nudge so far is answered; none may count later.
        pin!(self.nudged.notified()).as_mut().enable();
        let mut stands_by = false;
        let mut inbox_there = pin!(inbox_appears(session, inbox.is_some()));
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
                    self.down(lost(&"another process serves this session now"));
                    stands_by = true;
                }
                (Some("ended"), _) => return Ok(End::Ended),
                _ => {} // `ready`, or an event of a newer broker
            }
        }
    }

    fn down(&self, reason: Error) {
        self.state.send_replace(LinkState::Down(Some(reason)));
    }

    /// Takes the session off the list of peers, if it is registered.
    pub async fn unregister(&self) {
        if let Some(up) = self.current()
            && let Err(error) = up.post::<Done>("/v1/unregister", &serde_json::json!({}), AT_ONCE).await
        {
            log!("unregistering: {error}");
        }
    }

    /// The registration, if there is one right now.
    pub fn current(&self) -> Option<Arc<Registration>> {
        self.state.borrow().settled()?.ok()
    }

    /// Waits until the session is registered and its client has an inbox; none if this process will not be served. Does not
    /// nudge: if another process serves the session, that one writes.
    pub async fn with_inbox(&self) -> Option<(Arc<Registration>, Inbox)> {
        let with_inbox = |state: &LinkState| match state {
            LinkState::Up(up) => Some(Some((up.clone(), up.inbox.clone()?))),
            LinkState::Down(_) => None,
            LinkState::Refused(_) => Some(None),
        };
        self.wait_for(with_inbox).await
    }

    /// Waits until this registration no longer holds.
    pub async fn leaves(&self, up: &Arc<Registration>) {
        let holds = |state: &LinkState| matches!(state, LinkState::Up(now) if Arc::ptr_eq(now, up));
        self.wait_for(|state| (!holds(state)).then_some(())).await;
    }

    /// Waits until the session is registered, however long that takes.
    ///
    /// # Errors
    /// If this process will not be served.
    pub async fn up(&self) -> Result<Arc<Registration>> {
        self.nudge(); // once: after that, the link's own pauses count
        self.wait_for(LinkState::settled).await
    }

    /// `GET path` as this session. The broker may take `wait` to answer.
    pub async fn get<T: DeserializeOwned + Send>(&self, path: &str, wait: Duration) -> Result<T> {
        self.call(|up| async move { up.get(path, wait).await }).await
    }

    /// `POST path` as this session. The broker may take `wait` to answer.
    pub async fn post<T: DeserializeOwned + Send>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
        wait: Duration,
    ) -> Result<T> {
        self.call(|up| async move { up.post(path, body, wait).await }).await
    }

    async fn call<T, F: Future<Output = Result<T>> + Send>(&self, attempt: impl Fn(Arc<Registration>) -> F) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match attempt(self.up_by(deadline).await?).await {
                Err(error) if mends_itself(&error) && Instant::now() < deadline => sleep(FIRST_PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// Waits until `deadline` for the session to be registered, and makes the link hurry. Fails at once if waiting cannot help.
    async fn up_by(&self, deadline: Instant) -> Result<Arc<Registration>> {
        let decided = |state: &LinkState| match state {
            LinkState::Down(Some(error)) if !mends_itself(error) => Some(Err(error.clone())),
            state => state.settled(),
        };
        loop {
            self.nudge();
            let next = deadline.min(Instant::now() + NUDGE);
            match timeout_at(next, self.wait_for(decided)).await {
                Ok(decided) => return decided,
                Err(_) if next < deadline => {}
                Err(_) => return Err(self.why_down()),
            }
        }
    }

    fn why_down(&self) -> Error {
        match &*self.state.borrow() {
            LinkState::Down(Some(error)) => error.clone(),
            _ => Error::new(Code::Unreachable, "the claude-peers broker has not answered yet").help(START_HELP),
        }
    }

    /// Makes the link try again now, unless it is up.
    fn nudge(&self) {
        if matches!(&*self.state.borrow(), LinkState::Down(_)) {
            self.nudged.notify_one();
        }
    }

    /// Waits until `pick` finds something in the state.
    async fn wait_for<T>(&self, pick: impl Fn(&LinkState) -> Option<T>) -> T {
        let mut state = self.state.subscribe();
        loop {
            if let Some(found) = pick(&state.borrow_and_update()) {
                return found;
            }
            if state.changed().await.is_err() {
                std::future::pending::<()>().await; // cannot be: the sender lives as long as this link
            }
        }
    }
}

/// Resolves when the inbox of the session's client, which was missing, is there.
async fn inbox_appears(session: &Session, is_there: bool) {
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

/// `pause`, up to a quarter longer: sessions that lost the broker together do not all come back at the same moment.
fn spread(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(1.0 + share / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_mends_itself_is_waited_for() {
        let link = Link::default();
        let down = |code| link.down(Error::new(code, "no socket").help("start it"));
        down(Code::VersionMismatch);
        let failed = link.get::<()>("/v1/status", AT_ONCE).await.expect_err("there is no broker");
        assert_eq!(failed.to_string(), "no socket; start it");

        down(Code::Unreachable);
        let return_of_another = async {
            link.nudged.notified().await; // the call hurries the link
            down(Code::VersionMismatch);
        };
        let (failed, ()) = tokio::join!(link.get::<()>("/v1/status", AT_ONCE), return_of_another);
        assert_eq!(failed.expect_err("there is no broker").code, Code::VersionMismatch);
    }
}
