//! The broker that runs while its program is replaced: it goes on with the old one until it is restarted.
//!
//! Promises: one that the service manager runs is restarted, its sockets held meanwhile; one that is not running stays so.

use crate::cli::manager::{Manager, SERVICE};
use serde::Serialize;

/// What became of the running broker.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Broker {
    /// It runs the new program.
    Restarted,
    /// The service manager ran none; the next one is new.
    NotRunning,
    /// There is no service manager: whoever started it must end it.
    Unmanaged,
    /// It runs the old program still.
    Failed {
        /// Why.
        problem: String,
        /// What to do next.
        help: String,
    },
}

/// Restarts the broker where the service manager runs it.
pub async fn broker() -> Broker {
    let (ran, restart) = match Manager::find().await {
        Manager::None(_) => return Broker::Unmanaged,
        Manager::Systemd(systemd) => {
            let ran = systemd.units([SERVICE]).await.map(|[unit]| unit.is_active());
            (ran, systemd.try_restart([SERVICE]))
        }
        Manager::Launchd(launchd) => (launchd.pid().await.map(|pid| pid.is_some()), launchd.restart()),
    };
    let done = match ran {
        Ok(false) => return Broker::NotRunning,
        Ok(true) => restart.run().await.map(|_| Broker::Restarted),
        Err(error) => Err(error),
    };
    done.unwrap_or_else(|error| Broker::Failed { problem: error.to_string(), help: restart.to_string() })
}

impl Broker {
    /// A line about it.
    pub fn line(&self) -> String {
        match self {
            Self::Restarted => "The broker was restarted with the new program.\n".to_owned(),
            Self::NotRunning => "The broker was not running; it starts with the new program.\n".to_owned(),
            Self::Unmanaged => {
                "There is no service manager here: a broker that runs goes on with the old program until `claude-peers stop`.\n"
                    .to_owned()
            }
            Self::Failed { problem, help } => {
                format!("The broker could not be restarted and goes on with the old program: {problem}\nTo restart it: {help}\n")
            }
        }
    }
}
