//! The interface `dev.claudepeers.Broker1`: each method parses its arguments and calls the method of the broker that HTTP
//! calls too. The comments on its members are its documentation on the bus: introspection shows them.

use super::values::{Dict, dict};
use crate::{
    broker::Caller,
    serve::{app::App, log},
    wire::{self, Code, Error, ListPeers, Scope, SendRequest, VERSION, echo},
};
use std::{collections::HashMap, sync::Arc};
use zbus::{Variant, object_server::SignalEmitter};

const SEND_OPTIONS: &str = "replyTo (s) and key (s)";

pub struct Interface {
    app: Arc<App>,
}

impl Interface {
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

// Callers are the user: the bus lets in nobody else, and its owner was checked.
#[zbus::interface(name = "dev.claudepeers.Broker1")]
impl Interface {
    /// The broker's state, as `claude-peers status` shows it: version (s), api (t), pid (t), startedAt (s), peers (t),
    /// listeners (aa{sv}), database (a{sv}), notices (as).
    #[zbus(out_args("status"))]
    async fn status(&self) -> wire::Result<Dict> {
        dict(&self.app.broker.status(self.app.listeners.clone()).await?)
    }

    /// The sessions that are there now, by name.
    ///
    /// scope: machine (or empty) for all, directory for those in the same directory, repo for those in the same git repository.
    ///
    /// directory: the absolute path from which directory and repo are seen; empty for machine.
    ///
    /// peers: each with id (s), name (s), cwd (s), summary (s), status (s: connected, reconnecting), delivery (s),
    /// deliveryReason (s), waiting (t), lastSeen (s), registeredAt (s), and where known gitRepo (s), gitBranch (s), pid (t),
    /// tty (s), agent (a{sv}: name (s) and version (s)), activity (a{sv}: doing (s: idle, working, needs_you, unattended), since (s), needs (s)).
    #[zbus(out_args("peers"))]
    async fn list_peers(&self, scope: &str, directory: &str) -> wire::Result<Vec<Dict>> {
        let scope = if scope.is_empty() { Scope::Machine.as_str() } else { scope };
        let request = ListPeers { scope: scope.to_owned(), cwd: Some(directory.to_owned()).filter(|cwd| !cwd.is_empty()) };
        let listed = self.app.broker.list(&Caller::User, &request).await?;
        listed.peers.iter().map(dict).collect()
    }

    /// Sends a message as the command line does. When this answers, the message is on disk.
    ///
    /// recipient: a session's id or name.
    ///
    /// options: replyTo (s), the id of the message this one answers; key (s), which makes it safe to send again: the same key
    /// is the same message.
    ///
    /// receipt: messageId (s), from (s), to (s), toName (s), state (s), sentAt (s), expiresAt (s), and where there is one
    /// replyTo (s) and warning (s): why the recipient will not see it at once.
    #[zbus(out_args("message_id", "receipt"))]
    async fn send(&self, recipient: &str, text: &str, options: HashMap<String, Variant<'_>>) -> wire::Result<(String, Dict)> {
        let mut request =
            SendRequest { to: recipient.to_owned(), text: text.to_owned(), reply_to: None, key: None, cwd: None, wake: false };
        for (name, value) in &options {
            let place = match name.as_str() {
                "replyTo" => &mut request.reply_to,
                "key" => &mut request.key,
                _ => return Err(wrong_option(name, "is unknown", SEND_OPTIONS)),
            };
            *place = Some(value.downcast_ref::<String>().map_err(|_| wrong_option(name, "is no text", SEND_OPTIONS))?);
        }
        let receipt = self.app.broker.send(&Caller::User, request).await?;
        Ok((receipt.message_id.to_string(), dict(&receipt)?))
    }

    /// What became of a message.
    ///
    /// state: queued, offered, delivered or expired.
    ///
    /// receipt: as SendRequest answers it, and route (s), offeredAt (s), deliveredAt (s), expiredAt (s) once that is so.
    #[zbus(out_args("state", "receipt"))]
    async fn message_state(&self, message_id: &str) -> wire::Result<(String, Dict)> {
        let receipt = self.app.broker.message(&Caller::User, message_id).await?.receipt;
        Ok((receipt.state.to_string(), dict(&receipt)?))
    }

    /// Messages by their words, best first.
    ///
    /// words: all must occur; a phrase in quotes; begin* for a beginning.
    ///
    /// options: peer (s), an id or a name; repo (s), the name of a repository; since (s) and before (s), times; state (s); limit
    /// (t), at most 200, by default 20.
    ///
    /// messages: each with messageId (s), fromName (s), toName (s), text (s), excerpt (aa{sv}: text (s) and hit (b)), and the fields
    /// of a receipt.
    #[zbus(out_args("messages"))]
    async fn search(&self, words: &str, options: HashMap<String, Variant<'_>>) -> wire::Result<Vec<Dict>> {
        let wrong =
            |name: &str, why: &str| wrong_option(name, why, "peer (s), repo (s), since (s), before (s), state (s) and limit (t)");
        let mut request = serde_json::Map::from_iter([("words".to_owned(), words.into())]);
        for (name, value) in &options {
            let text = || value.downcast_ref::<String>().map_err(|_| wrong(name, "is no text"));
            let value: serde_json::Value = match name.as_str() {
                "peer" | "repo" | "since" | "before" | "state" => text()?.into(),
                "limit" => value.downcast_ref::<u64>().map_err(|_| wrong(name, "is no number (t)"))?.into(),
                _ => return Err(wrong(name, "is unknown")),
            };
            request.insert(name.clone(), value);
        }
        let request = serde_json::from_value(request.into())
            .map_err(|error| Error::new(Code::InvalidRequest, format!("the options cannot be used: {error}")))?;
        self.app.broker.search(&Caller::User, &request).await?.messages.iter().map(dict).collect()
    }

    /// Logs from this level on, until the broker ends: error, warn, info, debug or trace.
    async fn set_log_level(&self, level: &str, #[zbus(signal_emitter)] to: SignalEmitter<'_>) -> wire::Result<()> {
        if level != log::level() {
            log::set_level(level)?;
            tracing::info!(level, "the log level was set to {level}");
            if let Err(error) = self.log_level_changed(&to).await {
                tracing::debug!(%error, "telling the bus of the log level failed: {error}");
            }
        }
        Ok(())
    }

    /// Stops the broker: it finishes what it has accepted and ends. The next session, or the next call here, starts it again
    /// where a service manager holds its sockets.
    async fn stop(&self) {
        tracing::info!("asked to stop");
        self.app.broker.stop();
    }

    /// The broker's version.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        VERSION
    }

    /// How many sessions are there.
    #[zbus(property)]
    async fn peer_count(&self) -> u32 {
        self.app.broker.peer_count().await
    }

    /// How many messages wait for their recipients.
    #[zbus(property)]
    fn waiting_count(&self) -> zbus::fdo::Result<u64> {
        self.app.broker.waiting_count().map_err(|error| zbus::fdo::Error::Failed(error.to_string()))
    }

    /// The level from which on the broker logs; SetLogLevel sets it.
    #[zbus(property)]
    fn log_level(&self) -> String {
        log::level()
    }

    /// A session is there that was not.
    #[zbus(signal)]
    pub async fn peer_joined(to: &SignalEmitter<'_>, id: &str, name: &str, directory: &str) -> zbus::Result<()>;

    /// A session is not there any more. Its mailbox is kept.
    #[zbus(signal)]
    pub async fn peer_left(to: &SignalEmitter<'_>, id: &str, name: &str) -> zbus::Result<()>;

    /// A message was accepted (queued), pushed (offered), handed over for certain (delivered), or not in time (expired).
    ///
    /// sender, recipient: ids of sessions; cli is the command line, broker the broker itself.
    ///
    /// route: how it got there, empty while queued.
    ///
    /// Of very many at once some are left out; MessageState always tells.
    #[zbus(signal)]
    pub async fn message_state_changed(
        to: &SignalEmitter<'_>,
        message_id: &str,
        sender: &str,
        recipient: &str,
        state: &str,
        route: &str,
    ) -> zbus::Result<()>;
}

fn wrong_option(name: &str, why: &str, options: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("option {:?} {why}", echo(name))).help(format!("there are {options}"))
}
