//! Shows desktop notifications.
//!
//! Promises: at most [`MOST`] a minute, and none that the person has switched off with `CLAUDE_PEERS_NOTIFY`.

use crate::{
    broker::{Notification, Notifications, Subject},
    platform::settings::{self, InvalidSetting},
};
use std::{
    collections::VecDeque,
    fmt::Display,
    time::{Duration, Instant},
};

/// How many notifications a minute.
const MOST: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    On,
    Away,
    Off,
}

impl When {
    pub(super) fn from_env() -> Result<Self, InvalidSetting> {
        Ok(match settings::NOTIFY.text()?.as_str() {
            "off" => Self::Off,
            "away" => Self::Away,
            _ => Self::On,
        })
    }
}

pub(super) trait Desktop {
    type Error: Display;

    /// Shows a notification. `title` and `text` are plain text.
    async fn put_up(&self, subject: Subject, title: &str, text: &str) -> Result<(), Self::Error>;

    /// Takes it away again, if it is still there.
    async fn withdraw(&self, subject: &Subject) -> Result<(), Self::Error>;

    /// Whether the person is away; true if the desktop cannot tell.
    async fn is_away(&self) -> bool;
}

/// Shows notifications until the broker stops.
pub(super) async fn notify(mut notifications: Notifications, desktop: &impl Desktop, when: When) {
    let mut recent: VecDeque<Instant> = VecDeque::new();
    while let Some(next) = notifications.next().await {
        let done = match next {
            Notification::Withdraw(subject) => desktop.withdraw(&subject).await,
            Notification::Show { .. } if when == When::Away && !desktop.is_away().await => Ok(()),
            Notification::Show { subject, title, text } => {
                recent.retain(|at| at.elapsed() < MINUTE);
                if recent.len() >= MOST {
                    tracing::debug!("too many notifications in a minute: {title}");
                    continue;
                }
                recent.push_back(Instant::now());
                desktop.put_up(subject, &title, &text).await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the desktop shows no notifications");
        }
    }
}
