//! Desktop notifications on the session bus (org.freedesktop.Notifications). Without a program that shows them, nothing happens.
//!
//! Promises: a notification disappears when it is settled, and a click opens the live view. Text of sessions is only text, never
//! markup. A slow desktop delays nobody else.

use crate::{
    broker::{Notifications, Subject},
    platform::paths,
    serve::desktop::{self, Desktop, When},
};
use futures_util::StreamExt;
use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    time::Duration,
};
use tokio::sync::Mutex;
use zbus::{Connection, MatchRule, MessageStream, Variant, message::Type};

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// How long the login manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The action that a click runs.
const OPEN: &str = "default";
/// Opens the live view in the user's terminal.
const SHOW: &str = "for terminal in xdg-terminal-exec 'x-terminal-emulator -e'; do
    command -v \"${terminal%% *}\" >/dev/null && exec $terminal \"$0\" watch
done
echo 'there is no terminal: install xdg-terminal-exec' >&2; exit 1";

/// The notifications on the screen, with the desktop's numbers. Locked while one is put up, so that a click finds its number.
type OnScreen = Mutex<BTreeMap<Subject, u32>>;

/// The desktop at the other end of the session bus.
struct OnBus<'a> {
    connection: &'a Connection,
    on_screen: &'a OnScreen,
}

/// Shows notifications until the broker stops.
pub(super) async fn notify(notifications: Notifications, connection: &Connection, when: When) {
    if when == When::Off {
        return;
    }
    let on_screen = OnScreen::default();
    let clicks = async {
        if let Err(error) = react(connection, &on_screen).await {
            tracing::debug!(%error, "clicks on notifications are not heard");
        }
        std::future::pending::<()>().await;
    };
    let on_bus = OnBus { connection, on_screen: &on_screen };
    tokio::select! {
        () = desktop::notify(notifications, &on_bus, when) => {}
        () = clicks => {}
    }
}

impl Desktop for OnBus<'_> {
    type Error = zbus::Error;

    async fn put_up(&self, subject: Subject, title: &str, text: &str) -> zbus::Result<()> {
        let capabilities = self.connection.call_method(Some(NAME), PATH, Some(NAME), "GetCapabilities", &()).await?;
        let capabilities: Vec<String> = capabilities.body().deserialize()?;
        let can = |what: &str| capabilities.iter().any(|capability| capability == what);
        let text = match can("body-markup") {
            true => text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"),
            false => text.to_owned(),
        };
        let actions = if can("actions") && can_open() { vec![OPEN, "Show"] } else { vec![] };
        let urgency: u8 = if matches!(subject, Subject::Expired(_)) { 0 } else { 1 };
        let hints: HashMap<&str, Variant<'_>> = HashMap::from([
            ("urgency", urgency.into()),
            ("category", "im.received".into()),
            ("desktop-entry", "claude-peers".into()),
        ]);
        let notification = ("claude-peers", 0_u32, "utilities-terminal", title, text.as_str(), actions, hints, -1_i32);
        let mut on_screen = self.on_screen.lock().await;
        let answer = self.connection.call_method(Some(NAME), PATH, Some(NAME), "Notify", &notification).await?;
        on_screen.insert(subject, answer.body().deserialize()?);
        Ok(())
    }

    async fn withdraw(&self, subject: &Subject) -> zbus::Result<()> {
        let number = self.on_screen.lock().await.remove(subject);
        if let Some(number) = number {
            self.connection.call_method(Some(NAME), PATH, Some(NAME), "CloseNotification", &(number,)).await?;
        }
        Ok(())
    }

    /// Whether the desktop is idle or locked, as the login manager says.
    async fn is_away(&self) -> bool {
        let ask = async {
            let system = Connection::system().await?;
            let mut away = false;
            for property in ["IdleHint", "LockedHint"] {
                let (manager, session, properties) =
                    ("org.freedesktop.login1", "/org/freedesktop/login1/session/auto", "org.freedesktop.DBus.Properties");
                let arguments = ("org.freedesktop.login1.Session", property);
                let answer = system.call_method(Some(manager), session, Some(properties), "Get", &arguments).await?;
                away |= answer.body().deserialize::<Variant<'_>>()?.downcast_ref::<bool>()?;
            }
            zbus::Result::Ok(away)
        };
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(away)) => away,
            Ok(Err(error)) => {
                tracing::debug!(%error, "whether the user is away is unknown");
                true
            }
            Err(_) => true,
        }
    }
}

/// Opens the live view at a click, and forgets what the user has closed, as long as the connection lasts.
async fn react(connection: &Connection, on_screen: &OnScreen) -> zbus::Result<()> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(NAME).interface(NAME).build()?;
    let mut signals = MessageStream::for_match_rule(rule, connection, None).await?;
    while let Some(Ok(message)) = signals.next().await {
        let header = message.header();
        let (body, member) = (message.body(), header.member().map(ToString::to_string).unwrap_or_default());
        let mut on_screen = on_screen.lock().await;
        match member.as_str() {
            "ActionInvoked" => {
                if let Ok((number, key)) = body.deserialize::<(u32, String)>()
                    && key == OPEN
                    && on_screen.values().any(|ours| *ours == number)
                {
                    open();
                }
            }
            "NotificationClosed" => {
                if let Ok((number, _reason)) = body.deserialize::<(u32, u32)>() {
                    on_screen.retain(|_, ours| *ours != number);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the user's manager can start a terminal outside of the broker's sandbox.
fn can_open() -> bool {
    paths::runtime_dir().is_some_and(|runtime| runtime.join("systemd/private").exists())
}

fn open() {
    let program = std::env::current_exe().ok().map(|broker| broker.with_file_name("claude-peers"));
    let Some(program) = program.filter(|program| program.exists()) else {
        return tracing::warn!("the program claude-peers is not beside the broker: the live view cannot be opened");
    };
    let mut command = tokio::process::Command::new("systemd-run");
    command.args(["--user", "--quiet", "--collect", "--", "sh", "-c", SHOW]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => _ = tokio::spawn(async move { child.wait().await }), // systemd logs what becomes of it
        Err(error) => tracing::warn!(%error, "the live view cannot be opened: running systemd-run: {error}"),
    }
}
