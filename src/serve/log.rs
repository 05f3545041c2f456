//! Logs: to the journal, with fields of their own (`CLAUDE_PEERS_PEER`, `CLAUDE_PEERS_MESSAGE` …), where standard error is the
//! journal; lines on standard error otherwise. A line says all in its text, so that people need no fields. Neither ever holds a
//! secret or a message's text.
//!
//! `message` is tracing's own name for the text, so a message's id is in the field `_message`: the journal leaves the `_` out.

use crate::{
    platform::settings::{self, InvalidSetting},
    wire::{self, Code, Error, echo, text::printable_line},
};
use rustix::fs::fstat;
use std::{
    fmt::{self, Debug},
    sync::OnceLock,
};
use tracing::{field::Field, level_filters::LevelFilter};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    Layer, Registry,
    fmt::format::{Writer, debug_fn},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

/// The level of the process's only log.
static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Starts logging at the level of `CLAUDE_PEERS_LOG`. Fails if the variable names no level.
pub(super) fn start() -> Result<(), InvalidSetting> {
    let level: LevelFilter = settings::LOG.parse()?;
    let (level, handle) = reload::Layer::new(level);
    LEVEL.get_or_init(|| handle);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match journal() {
        Some(journal) => journal.boxed(),
        None => {
            let text = tracing_subscriber::fmt::layer().fmt_fields(debug_fn(text));
            text.with_writer(std::io::stderr).with_target(false).with_ansi(is_terminal()).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(level)).init();
    Ok(())
}

/// The least severe level that is logged.
pub(super) fn level() -> String {
    LevelFilter::current().to_string()
}

/// Logs from `level` on, until the level is set again or the process ends.
pub(super) fn set_level(level: &str) -> wire::Result<()> {
    let wanted = settings::LOG.allows(level.as_ref()).then(|| level.parse().ok()).flatten();
    let wanted: LevelFilter = wanted.ok_or_else(|| {
        Error::new(Code::InvalidRequest, format!("{:?} is no log level", echo(level))).help(format!("use {}", settings::LOG.kind))
    })?;
    let log = LEVEL.get().ok_or_else(|| Error::new(Code::Internal, "there is no log"))?;
    log.reload(wanted).map_err(|error| Error::new(Code::Internal, format!("setting the log level: {error}")))
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
    let priorities = PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    let journal = journal.with_priority_mappings(priorities);
    Some(journal.with_field_prefix(Some("CLAUDE_PEERS".to_owned())).with_syslog_identifier("claude-peersd".to_owned()))
}

/// Writes the text of a line, made harmless; the fields repeat it.
fn text(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() == "message" { writer.write_str(&printable_line(&format!("{value:?}"))) } else { Ok(()) }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && settings::raw(settings::NO_COLOR.name).is_none()
}
