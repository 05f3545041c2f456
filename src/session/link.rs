//! The link to the broker: the session's registration, and all calls to the broker.
//!
//! Calls wait while the broker restarts. Idempotency keys and leases make every call safe to repeat, so a call that was cut off
//! is repeated.

use super::{
    doors::{self, Door},
    log,
};
use crate::{
    agents::clients::{self, Client},
    client::{self, START_HELP},
    wire::{Code, Done, Error, Registered, Result},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, SetOnce, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

/// The time limit of a call that the broker answers without waiting.
pub const AT_ONCE: Duration = Duration::ZERO;
/// How long a call waits for the broker to come back: longer than a restart takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a waiting call makes the session register again.
const NUDGE: Duration = Duration::from_millis(100);
/// The pause before a call that was cut off is repeated.
const PAUSE: Duration = Duration::from_millis(20);

/// A registration with a broker that is running.
pub struct Registration {
    pub client: client::Client,
    pub door: Option<Door>,
    /// The id of the session that it serves, if known.
    pub session: Option<String>,
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
}

/// The client that has opened the session.
#[derive(Debug)]
pub struct Opener {
    pub client: &'static Client,
    /// Its short name, and its version as it reports it.
    pub name: String,
    pub version: String,
    /// Whether messages will probably be let into its session.
    pub has_door: bool,
}

impl Opener {
    /// The client that gives itself this name and version.
    pub fn new(name: &str, version: String) -> Self {
        let client = clients::named(name);
        let short = if client.program.is_empty() { name } else { client.program };
        Self { client, name: short.to_owned(), version, has_door: doors::has_door(client) }
    }
}

enum LinkState {
    /// Not registered, with the reason once known.
    Down(Option<Error>),
    Up(Arc<Registration>),
    /// This process can never be served, whatever the broker does.
    Refused(Error),
}

impl LinkState {
    /// The registration, or the reason why there will be none; none while undecided.
    fn settled(&self) -> Option<Result<Arc<Registration>>> {
        match self {
            Self::Down(_) => None,
            Self::Up(up) => Some(Ok(up.clone())),
            Self::Refused(error) => Some(Err(error.clone())),
        }
    }
}

pub struct Link {
    state: watch::Sender<LinkState>,
    /// The session that the client's first call names.
    named: watch::Sender<Option<String>>,
    /// A call needs the broker.
    pub nudged: Notify,
    /// The door does not lead into this session any more.
    pub door_fails: Notify,
    pub opener: SetOnce<Opener>,
    /// The client has said that it is initialized, which opens the channel and the inbox.
    pub initialized: SetOnce<()>,
}

impl Default for Link {
    fn default() -> Self {
        let state = watch::Sender::new(LinkState::Down(None));
        Self {
            state,
            named: watch::Sender::default(),
            nudged: Notify::new(),
            door_fails: Notify::new(),
            opener: SetOnce::new(),
            initialized: SetOnce::new(),
        }
    }
}

/// Whether the error may pass without any action.
pub fn mends_itself(error: &Error) -> bool {
    // An unknown secret may pass too: the session registers again.
    use Code::{Busy, DatabaseLocked, DatabaseMoved, RequestTimeout, Stopping, Unauthorized, Unreachable};
    matches!(error.code, Unreachable | Stopping | DatabaseMoved | DatabaseLocked | Busy | RequestTimeout | Unauthorized)
}

impl Link {
    pub fn registered(&self, registration: Registration) {
        self.state.send_replace(LinkState::Up(Arc::new(registration)));
        // Every nudge so far is answered, so none may count later.
        pin!(self.nudged.notified()).as_mut().enable();
    }

    /// The session is not registered any more, or could not be.
    pub fn down(&self, reason: Error) {
        if !matches!(&*self.state.borrow(), LinkState::Down(Some(known)) if *known == reason) {
            log!("{reason}");
        }
        self.state.send_replace(LinkState::Down(Some(reason)));
    }

    pub fn refuse(&self, reason: Error) {
        log!("{reason}");
        self.state.send_replace(LinkState::Refused(reason));
    }

    /// The client that has opened the session.
    pub fn client(&self) -> &'static Client {
        self.opener.get().map_or(&clients::UNKNOWN, |opener| opener.client)
    }

    /// Whether messages arrive in this session by themselves, as far as was known when it was opened.
    pub fn has_door(&self) -> bool {
        self.opener.get().is_some_and(|opener| opener.has_door)
    }

    /// The session that the client's first call has named.
    pub fn named(&self) -> Option<String> {
        self.named.borrow().clone()
    }

    /// Resolves when a call names another session than `this`.
    pub async fn names_other(&self, this: Option<&str>) {
        let mut named = self.named.subscribe();
        _ = named.wait_for(|named| named.is_some() && named.as_deref() != this).await; // no error, as in `wait_for`
    }

    /// Follows which session is named.
    pub fn names(&self) -> watch::Receiver<Option<String>> {
        self.named.subscribe()
    }

    /// Makes this process serve the session that a call names, if it is the first one named. Waits for that, but not for long. False if
    /// this process serves another session.
    pub async fn serve(&self, session: String) -> bool {
        self.named.send_if_modified(|named| {
            let is_first = named.is_none();
            named.get_or_insert_with(|| session.clone());
            is_first
        });
        let decided = |state: &LinkState| match state {
            LinkState::Up(up) => (up.session.as_ref() == Some(&session)).then_some(()),
            LinkState::Down(reason) => reason.is_some().then_some(()), // the next registration names the session
            LinkState::Refused(_) => Some(()),
        };
        let is_its_own = self.named.borrow().as_ref() == Some(&session);
        if is_its_own {
            _ = timeout(PATIENCE, self.wait_for(decided)).await;
        }
        is_its_own
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

    /// Waits until the session is registered with an open door; none if this process will not be served. Does not nudge, because a
    /// process that already serves the session lets its messages in.
    pub async fn with_door(&self) -> Option<(Arc<Registration>, Door)> {
        let with_door = |state: &LinkState| match state {
            LinkState::Up(up) => Some(Some((up.clone(), up.door.clone()?))),
            LinkState::Down(_) => None,
            LinkState::Refused(_) => Some(None),
        };
        self.wait_for(with_door).await
    }

    /// Waits until this registration no longer holds.
    pub async fn leaves(&self, up: &Arc<Registration>) {
        let holds = |state: &LinkState| matches!(state, LinkState::Up(now) if Arc::ptr_eq(now, up));
        self.wait_for(|state| (!holds(state)).then_some(())).await;
    }

    /// Like [`Self::up`], for work in the background: it does not nudge, so that a displaced process does not come back for it.
    pub async fn served(&self) -> Result<Arc<Registration>> {
        self.wait_for(LinkState::settled).await
    }

    /// Waits until the session is registered, however long that takes.
    ///
    /// # Errors
    /// If this process will not be served.
    pub async fn up(&self) -> Result<Arc<Registration>> {
        self.nudge(); // once: after that, the pauses between attempts count
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
                Err(error) if mends_itself(&error) && Instant::now() < deadline => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// Waits until `deadline` for the session to be registered, and hurries the registration. Fails at once if waiting cannot
    /// help.
    async fn up_by(&self, deadline: Instant) -> Result<Arc<Registration>> {
        let decided = |state: &LinkState| match state {
            LinkState::Down(Some(error)) if !mends_itself(error) => Some(Err(error.clone())),
            state => state.settled(),
        };
        let hurried = async {
            loop {
                self.nudge();
                if let Ok(decided) = timeout(NUDGE, self.wait_for(decided)).await {
                    return decided;
                }
            }
        };
        timeout_at(deadline, hurried).await.unwrap_or_else(|_| Err(self.why_down()))
    }

    fn why_down(&self) -> Error {
        match &*self.state.borrow() {
            LinkState::Down(Some(error)) => error.clone(),
            _ => Error::new(Code::Unreachable, "the claude-peers broker has not answered yet").help(START_HELP),
        }
    }

    /// Makes the session register again now, unless it is registered.
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
            _ = state.changed().await; // no error: the sender lives as long as this link
        }
    }
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
