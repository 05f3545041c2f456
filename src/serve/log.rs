//! Logs: to the journal, with fields of their own (`CLAUDE_PEERS_PEER`, `CLAUDE_PEERS_MESSAGE` …), where the service manager
//! has put it behind standard error; readable lines on standard error otherwise. Neither ever holds a secret or a text.

use crate::settings::{self, InvalidSetting};
use rustix::fs::fstat;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging at the level of `CLAUDE_PEERS_LOG` (`info` by default).
///
/// # Errors
/// If the variable holds no level.
pub fn start() -> Result<(), InvalidSetting> {
    let level =
        settings::parsed("CLAUDE_PEERS_LOG", "error, warn, info, debug or trace", |text| text.parse::<LevelFilter>().ok())?;
    let level = level.unwrap_or(LevelFilter::INFO);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match journal() {
        Some(journal) => journal.boxed(),
        None => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(is_terminal()).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(level)).init();
    Ok(())
}

/// The journal's own protocol, only if standard error is the journal: then `JOURNAL_STREAM` names its device and inode
/// (systemd.exec(5)).
fn journal() -> Option<tracing_journald::Layer> {
    let named = std::env::var("JOURNAL_STREAM").ok()?;
    let stat = fstat(std::io::stderr()).ok()?;
    if named != format!("{}:{}", stat.st_dev, stat.st_ino) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(journal.with_field_prefix(Some("CLAUDE_PEERS".to_owned())).with_syslog_identifier("claude-peersd".to_owned()))
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && settings::raw("NO_COLOR").is_none()
}
