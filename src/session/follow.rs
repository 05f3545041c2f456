//! Keeps the session registered and follows its event stream.
//!
//! - A lost connection is opened again after growing pauses, and at once when a tool needs the broker.
//! - Nothing here wakes up by itself while the stream is open.
//! - If a client runs two servers for one session, the newer serves it and the older stands by. The older takes over only when
//!   a call comes to it or the newer is gone, so that they do not displace each other endlessly.

use super::{
    channel::Channel,
    facts::{self, Session},
    link::{Link, Registration, mends_itself},
    log,
    mail::Mailbox,
};
use crate::{
    client::{Client, START_HELP},
    platform::paths,
    wire::{Code, Error, Inbound, Registered, Result},
};
use sse_stream::SseStream;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;

/// The first pause after a lost connection. It is short because a socket-activated broker is back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub struct Follower {
    pub link: Arc<Link>,
    pub channel: Channel,
    pub mail: Arc<Mailbox>,
    /// Proves this session's identity to the broker once it is registered.
    pub secret: Option<String>,
}

/// Why the process stops following an event stream.
enum End {
    /// Register again on the next call or after a while: the session has ended, or another process serves it.
    Aside,
    /// Register again: a call came while another process served the session, or named the session.
    Again,
    /// Register again: another door is open.
    Door,
}

impl Follower {
    /// Keeps the session registered after its client has identified itself. `parent` is the process that started this one.
    pub async fn run(mut self, parent: Option<u32>) {
        let session = match Session::new(&self.link, parent).await {
            Ok(session) => session,
            Err(error) => return self.link.refuse(error),
        };
        let (mut pause, mut door_pause) = (FIRST_PAUSE, FIRST_PAUSE);
        loop {
            let began = Instant::now();
            let error = match self.follow(&session).await {
                Ok(End::Again) => continue,
                Ok(End::Door) => {
                    // A door that opens and closes, or fails, again and again must not keep the broker busy.
                    door_pause = if began.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { door_pause };
                    sleep(door_pause).await;
                    door_pause = (door_pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
                Ok(End::Aside) => {
                    // If the session lives on, its next call registers this process again.
                    self.link.down(Error::new(Code::Unreachable, "the session has ended, or another process serves it"));
                    _ = timeout(LONGEST_PAUSE, self.link.nudged.notified()).await;
                    continue;
                }
                Err(error) => error,
            };
            if self.link.current().is_some() {
                pause = FIRST_PAUSE;
            }
            pause = if mends_itself(&error) { pause } else { LONGEST_PAUSE };
            self.link.down(error);
            tokio::select! {
                () = sleep(spread(pause)) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = self.link.nudged.notified() => {}
            }
        }
    }

    /// Registers and follows the event stream, and stands by while another process serves the session. Fails if the stream breaks
    /// off.
    async fn follow(&mut self, session: &Session) -> Result<End> {
        // Looked up each time, because the user's runtime directory may appear after the session starts.
        let client = Client::new(paths::socket_of_session().map_err(facts::unusable)?, facts::PROGRAM);
        let (mut facts, door) = session.facts().await?;
        if let Some(named) = self.link.named() {
            (facts.session_id, facts.adopts) = (Some(named), true);
        }
        let me: Registered = match client.post("/v1/register", self.secret.as_deref(), &facts).await {
            Err(error) if error.code == Code::Unauthorized && self.secret.is_some() => {
                client.post("/v1/register", None, &facts).await?
            }
            registered => registered?,
        };
        self.secret = Some(me.secret.clone());
        // No cursor: the channel remembers which messages it has pushed, in any order.
        let mut events = match client.stream("/v1/events", Some(&me.secret)).await {
            // Another server of this session registered in between. Displacing it at once could show a message twice.
            Err(error) if error.code == Code::Unauthorized => return Ok(End::Aside),
            events => SseStream::new(events?),
        };
        log!("connected as {} ({}) to broker {}", me.name, me.id, me.broker_version);
        self.mail.mail_waits(); // mail may wait already: the broker announces only new mail
        let mut door_changes = pin!(session.doors.change(door.as_ref()));
        self.link.registered(Registration { client, door: door.clone(), session: facts.session_id.clone(), me });
        let mut names_other = pin!(self.link.names_other(facts.session_id.as_deref()));
        let mut stands_by = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = self.link.nudged.notified(), if stands_by => return Ok(End::Again),
                () = &mut door_changes, if !stands_by => return Ok(End::Door),
                () = self.link.door_fails.notified(), if !stands_by => return Ok(End::Door),
                () = &mut names_other => return Ok(End::Again),
            };
            let event = event.ok_or_else(|| lost(&"the broker closed it"))?.map_err(|error| lost(&error))?;
            match (event.event.as_deref(), event.data) {
                (Some("message"), Some(data)) => {
                    self.link.initialized.wait().await;
                    self.channel.push(read(&data)?).await;
                }
                (Some("waiting"), _) => self.mail.mail_waits(),
                (Some("displaced"), _) => {
                    self.link.down(Error::new(Code::Unreachable, "another process serves this session now"));
                    stands_by = true;
                }
                (Some("ended"), _) => return Ok(End::Aside),
                _ => {} // `ready`, or an event of a newer broker
            }
        }
    }
}

fn lost(cause: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Unreachable, format!("the connection to the claude-peers broker ended: {cause}")).help(START_HELP)
}

fn read(data: &str) -> Result<Inbound> {
    let garbled = |error| Error::new(Code::VersionMismatch, format!("a message from the broker cannot be read: {error}"));
    serde_json::from_str(data).map_err(garbled)
}

/// `pause`, up to a quarter longer, so that sessions that lost the broker together do not all return at once.
fn spread(pause: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(1.0 + share / 4.0)
}
