//! Getting to a hub and into it.

use super::{
    hub::{Connection, Hub},
    report::Context,
};
use crate::wire::{self, Code, Error};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, jetstream, rustls};
use std::{path::PathBuf, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

/// The oldest server that the tests run with.
const OLDEST: (u32, u32, u32) = (2, 9, 10);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the client asks whether the hub is still there. Three questions without an answer end the connection.
const PING: Duration = Duration::from_secs(5);
/// How long a connection that breaks is tried again.
const MOMENT: Duration = Duration::from_secs(2);
/// How often it is tried at least, however long that takes: if a line loses much, a handshake can take longer than the hub waits.
const TRIES: u32 = 2;
/// How many messages of one subject wait in memory. Another machine may send many that are as large as the hub takes.
const WAITING: usize = 64;
/// The pause before a key is tried again.
const LOOK: Duration = Duration::from_millis(50);

/// How to get to a hub and into it.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// HOST:PORT, or several, separated by commas.
    pub addresses: String,
    pub login: Login,
    /// The file with the certificate that the hub's is signed with. Without one, a public authority has to have signed that.
    pub authority: Option<PathBuf>,
    /// The hub's JetStream domain, which a machine behind a leaf node has to name.
    pub domain: Option<String>,
}

/// How a hub knows who connects.
#[derive(Debug, Clone)]
pub(super) enum Login {
    /// By an nkey; its seed.
    Key(String),
    /// By a file of credentials, as the operators of a NATS server hand them out.
    Credentials(PathBuf),
}

impl Access {
    async fn options(&self, inbox: String) -> wire::Result<ConnectOptions> {
        let options = match &self.login {
            Login::Key(seed) => ConnectOptions::with_nkey(seed.clone()),
            Login::Credentials(file) => {
                ConnectOptions::with_credentials_file(file).await.local(format_args!("reading {}", file.display()))?
            }
        };
        let options =
            options.name("claude-peers-link").custom_inbox_prefix(inbox).connection_timeout(CONNECT_TIMEOUT).ping_interval(PING);
        let options = options.subscription_capacity(WAITING);
        Ok(match &self.authority {
            Some(file) => options.add_root_certificates(file.clone()).require_tls(true),
            None => options,
        })
    }

    fn jetstream(&self, client: &Client) -> jetstream::Context {
        match &self.domain {
            Some(domain) => jetstream::with_domain(client.clone(), domain),
            None => jetstream::new(client.clone()),
        }
    }

    fn servers(&self) -> wire::Result<Vec<ServerAddr>> {
        let read =
            |address: &str| address.parse().context(Code::InvalidRequest, format_args!("{address:?} is no address of a hub"));
        self.addresses.split(',').map(read).collect()
    }

    /// Connects now, or says why that is not possible.
    pub async fn connect(&self, inbox: String) -> wire::Result<Hub> {
        let options = self.options(inbox).await?;
        match options.connect(self.servers()?).await {
            Ok(client) if is_too_old(&client.server_info().version) => {
                let what = format!("the hub at {} runs nats-server {}", self.addresses, client.server_info().version);
                Err(Error::new(Code::VersionMismatch, what).help("it needs version 2.9.10 or later"))
            }
            Ok(client) => Ok(Hub { stream: self.jetstream(&client), client, state: watch::channel(Connection::Connected).1 }),
            Err(error) => Err(self.refused(error.kind(), &error)),
        }
    }

    /// Connects now. A key that is rejected is tried for as long as `patience`, and a connection that breaks for a moment, but twice at
    /// least: while a hub reloads, it rejects valid keys and drops connections.
    pub async fn connect_patiently(&self, inbox: &str, patience: Duration) -> wire::Result<Hub> {
        let (begun, mut tries) = (Instant::now(), 0);
        loop {
            tries += 1;
            match self.connect(inbox.to_owned()).await {
                Err(error) if error.code == Code::Forbidden && begun.elapsed() < patience => {}
                Err(error) if error.code == Code::Unreachable && (tries < TRIES || begun.elapsed() < patience.min(MOMENT)) => {}
                connected => return connected,
            }
            sleep(LOOK).await;
        }
    }

    /// Connects whenever that is possible.
    pub async fn keep_connected(&self, inbox: String) -> wire::Result<Hub> {
        let (states, state) = watch::channel(Connection::Connecting);
        let report = move |event| {
            match event {
                Event::Connected => drop(states.send_replace(Connection::Connected)),
                Event::Disconnected => drop(states.send_replace(Connection::Lost("the connection broke".to_owned()))),
                Event::ClientError(error) => {
                    states.send_if_modified(|state| {
                        let lost = Connection::Lost(error.to_string());
                        let is_news = !state.is_connected() && *state != lost;
                        if is_news {
                            *state = lost;
                        }
                        is_news
                    });
                }
                _ => {}
            }
            std::future::ready(())
        };
        let options = self.options(inbox).await?.event_callback(report).retry_on_initial_connect();
        let client = options.connect(self.servers()?).await.map_err(|error| self.refused(error.kind(), &error))?;
        Ok(Hub { stream: self.jetstream(&client), client, state })
    }

    /// `Forbidden` if the hub does not know the key, else `Unreachable`.
    fn refused(&self, kind: ConnectErrorKind, error: &dyn std::error::Error) -> Error {
        let addresses = &self.addresses;
        if matches!(kind, ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication) {
            return Error::new(Code::Forbidden, format!("the hub at {addresses} rejects this key"))
                .help("a machine that was revoked can `claude-peers link leave` and join again; the owner's key fits only the hub of its folder");
        }
        if let Some(cause) = tls(error) {
            return Error::new(Code::Unreachable, format!("the server at {addresses} is not the hub that it should be: {cause}"))
                .help("check the address; if the hub was set up again, join with a new invitation");
        }
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Error::new(Code::Unreachable, format!("the hub at {addresses} cannot be reached: {cause}"))
            .help("check that it runs, and that this machine can reach that address")
    }
}

/// Whether a server of this version lacks something that the link needs. One whose version cannot be read is tried.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
    let read = [numbers.next(), numbers.next(), numbers.next()].map(|number| number.and_then(Result::ok));
    let [Some(major), Some(minor), Some(patch)] = read else { return false };
    (major, minor, patch) < OLDEST
}

/// Why the other side was not the expected one, if that was the cause.
fn tls(error: &dyn std::error::Error) -> Option<&rustls::Error> {
    let inner = error.source()?;
    let within = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    inner.downcast_ref().or_else(|| within?.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::is_too_old;

    #[test]
    fn old_servers_are_told_by_their_version() {
        for (version, expected) in [
            ("2.9.9", true),
            ("2.1.0", true),
            ("1.4.1", true),
            ("2.9.10", false),
            ("2.15.1-RC.1", false),
            ("3.0.0", false),
            ("dev", false),
        ] {
            assert_eq!(is_too_old(version), expected, "{version}");
        }
    }
}
