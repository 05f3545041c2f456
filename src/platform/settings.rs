//! The settings: every environment variable that people set for our programs, in one table.
//!
//! To add a setting, add a row. `--help`, the man pages, `docs/settings.md` and the doctor's check are generated from the table.
//! An unusable value is an error that names the variable, the value and the allowed values; no default silently replaces it. An
//! empty variable counts as not set.

use crate::wire::{Code, Error};
use Kind::{File, Loopback, Number, Socket, Span, SpanOrOff, Text, Word};
use std::{
    ffi::{OsStr, OsString},
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    str::FromStr,
    time::Duration,
};

const BROKER: &str = "claude-peersd";
const SERVER: &str = "claude-peers-mcp";
const CLI: &str = "claude-peers";
/// Longest path of a Unix socket: 104 bytes on macOS and 108 on Linux, with the final zero. The smaller limit applies everywhere.
const MAX_SOCKET_PATH: usize = 103;

/// An error shows so many characters of a value: more than a path has that is too long by a little.
const MAX_SHOWN: usize = 300;

#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    pub readers: &'static [&'static str],
    /// The value if the variable is not set, in words if it depends on the environment.
    pub default: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// More for the manual.
    pub more: &'static str,
}

#[derive(Debug)]
pub enum Kind {
    /// A whole number within these bounds, and its unit.
    Number(u32, u32, &'static str),
    /// A port with an address that only this machine reaches.
    Loopback,
    Span,
    SpanOrOff,
    Word(&'static [&'static str]),
    /// The absolute path of a Unix socket.
    Socket,
    /// The absolute path of a file; `~` stands for the home directory.
    File,
    /// Text that only its reader can check, with a description.
    Text(&'static str),
}

macro_rules! settings {
    ($($constant:ident: $name:literal, $readers:expr, $default:literal, $kind:expr, $help:literal, $more:literal;)*) => {
        $(pub const $constant: Setting =
            Setting { name: $name, readers: &$readers, default: $default, kind: $kind, help: $help, more: $more };)*
        pub const ALL: &[Setting] = &[$($constant),*];
    };
}

settings! {
    SOCKET: "CLAUDE_PEERS_SOCKET", [BROKER, SERVER, CLI], "$XDG_RUNTIME_DIR/claude-peers/broker.sock", Socket,
        "The broker's Unix socket",
        "Without a runtime directory it is `~/.claude-peers/broker.sock`. A broker that runs as a service serves the socket of its unit.";
    PORT: "CLAUDE_PEERS_PORT", [BROKER], "7899", Number(0, 65_535, "a port, 0 for any free one"),
        "TCP port on 127.0.0.1, 0 for any free one", "";
    METRICS: "CLAUDE_PEERS_METRICS", [BROKER], "", Loopback, "Where Prometheus finds the metrics: 127.0.0.1:PORT",
        "There the broker serves `/metrics` and nothing else, to every user of this machine. The metrics contain no names and no message \
         texts. A scrape counts as a connection, so the broker does not stop when idle.";
    DB: "CLAUDE_PEERS_DB", [BROKER], "~/.claude-peers.db", File, "The database", "";
    LOG: "CLAUDE_PEERS_LOG", [BROKER], "info", Word(&["error", "warn", "info", "debug", "trace"]), "Log level: error, warn, info, debug or trace", "";
    RATE_LIMIT: "CLAUDE_PEERS_RATE_LIMIT", [BROKER], "120", Number(0, 1_000_000, "messages a minute, 0 for no limit"),
        "Messages a minute per sender, 0: rate and repeats unlimited", "";
    RATE_BURST: "CLAUDE_PEERS_RATE_BURST", [BROKER], "30", Number(1, 1_000_000, "messages at once"),
        "Messages at once per sender", "";
    REPEAT_LIMIT: "CLAUDE_PEERS_REPEAT_LIMIT", [BROKER], "3", Number(1, 1_000_000, "times a minute"),
        "The same text to the same peer, times a minute", "";
    TEXT_LIMIT: "CLAUDE_PEERS_TEXT_LIMIT", [BROKER], "262144", Number(1, 16 * 1024 * 1024, "bytes"), "Bytes of a message", "";
    SUMMARY_LIMIT: "CLAUDE_PEERS_SUMMARY_LIMIT", [BROKER], "1000", Number(1, 100_000, "characters"),
        "Characters of a summary", "";
    WAITING_LIMIT: "CLAUDE_PEERS_WAITING_LIMIT", [BROKER], "1000", Number(1, 10_000_000, "messages"),
        "Messages waiting for one recipient", "";
    EXPIRY: "CLAUDE_PEERS_EXPIRY", [BROKER], "7d", Span, "How long undelivered messages wait",
        "After that they expire, and their sender is told.";
    HISTORY: "CLAUDE_PEERS_HISTORY", [BROKER], "30d", Span, "How long delivered and expired messages are kept", "";
    IDLE_EXIT: "CLAUDE_PEERS_IDLE_EXIT", [BROKER], "10m under systemd, else off", SpanOrOff,
        "How long to run without a connection",
        "Then the broker stops, unless the value is `off`. Shorter than about ten seconds looks like a crash loop to systemd: the unit allows 30 \
         starts in five minutes.";
    DBUS: "DBUS_SESSION_BUS_ADDRESS", [BROKER], "$XDG_RUNTIME_DIR/bus, if it is there", Text("the address of a bus"),
        "The session bus", "The broker offers dev.claudepeers.Broker1 on it. All other features work without a bus.";
    NOTIFY: "CLAUDE_PEERS_NOTIFY", [BROKER], "on", Word(&["on", "away", "off"]), "Desktop notifications: on, away or off",
        "One appears when a session has waited for you for five seconds, when an answer to you has stayed unread for five seconds, and \
         when a message that you sent expires. `away` shows them only while the desktop is idle or locked.";
    DELIVERY: "CLAUDE_PEERS_DELIVERY", [SERVER], "auto", Word(&["auto", "inbox", "channel", "pull"]),
        "The way in which messages reach the session",
        "`auto` writes into the inbox of the session's client, or else into its channel; `inbox` uses the inbox only; `channel` \
         pushes whatever the start flags say; `pull` waits until the session calls a tool.";
    INBOUND: "CLAUDE_PEERS_INBOUND", [SERVER], "match", Word(&["match", "accept"]),
        "Which messages of other sessions are let in",
        "`match` holds a message if one of the two sessions bypasses permission prompts and the other does not. `accept` lets it in. \
         Claude Code's own setting `crossSessionInbound` takes precedence if it is set.";
    SUMMARY: "CLAUDE_PEERS_SUMMARY", [SERVER], "auto", Word(&["auto", "openai"]), "Which sessions use OPENAI_API_KEY",
        "`auto` uses `OPENAI_API_KEY` only in sessions of Claude Code, because the key may belong to another agent; `openai` uses it in \
         every session.";
    OPENAI_KEY: "OPENAI_API_KEY", [SERVER], "", Text("an API key"), "Lets a language model write the summaries",
        "The model gets names alone: the working directory, branch, subjects of commits, names of files. It never gets the contents of \
         files. Without the key, summaries are made on this machine.";
    OPENAI_URL: "OPENAI_BASE_URL", [SERVER], "https://api.openai.com/v1",
        Text("an http or https URL such as https://api.openai.com/v1"), "The API of the language model", "It must offer chat completions as OpenAI's does.";
    SUMMARY_MODEL: "CLAUDE_PEERS_SUMMARY_MODEL", [SERVER], "gpt-5.4-nano", Text("the name of a model"),
        "The language model that writes summaries", "";
    CLAUDE: "CLAUDE_PEERS_CLAUDE", [CLI], "found on PATH", Text("the absolute path of the program `claude`"),
        "The program `claude`, for setup and doctor",
        "If it is not set, they look on PATH, then where installers put it.";
    NO_COLOR: "NO_COLOR", [BROKER, CLI], "", Text("anything"), "Set to anything: no colours", "";
}

impl Setting {
    /// Its value, if it is set.
    pub fn set(&self) -> Result<Option<OsString>, InvalidSetting> {
        raw(self.name).map(|value| if self.allows(&value) { Ok(value) } else { Err(self.invalid(value)) }).transpose()
    }

    /// Its value, or its default.
    pub fn text(&self) -> Result<String, InvalidSetting> {
        match self.set()?.map(OsString::into_string) {
            None => Ok(self.default.to_owned()),
            Some(Ok(text)) => Ok(text.trim().to_owned()),
            Some(Err(value)) => Err(InvalidSetting::new(self.name, value.to_string_lossy(), "text in UTF-8")),
        }
    }

    /// Its value or default, as `parse` reads it.
    pub fn read<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, InvalidSetting> {
        let text = self.text()?;
        parse(&text).ok_or_else(|| self.invalid(&text))
    }

    pub fn parse<T: FromStr>(&self) -> Result<T, InvalidSetting> {
        self.read(|text| text.parse().ok())
    }

    pub fn span(&self) -> Result<Duration, InvalidSetting> {
        self.read(span)
    }

    pub fn invalid(&self, value: impl AsRef<OsStr>) -> InvalidSetting {
        InvalidSetting::new(self.name, value.as_ref().to_string_lossy(), self.kind.to_string())
    }

    /// Whether only the broker reads it. The service gets such a setting from its unit or its manager, not from a shell.
    pub fn is_brokers(&self) -> bool {
        self.readers == [BROKER] && self.name.starts_with("CLAUDE_PEERS_")
    }

    pub fn allows(&self, value: &OsStr) -> bool {
        let path = Path::new(value);
        match (&self.kind, value.to_str().map(str::trim)) {
            (Socket, _) => path.is_absolute() && value.len() <= MAX_SOCKET_PATH && path.file_name().is_some(),
            (File, _) => (path.is_absolute() || path.starts_with("~")) && path.file_name().is_some(),
            (Text(_), _) => true,
            (Loopback, Some(text)) => loopback(text).is_some(),
            (Number(least, most, _), Some(text)) => text.parse().is_ok_and(|number| (*least..=*most).contains(&number)),
            (Span, Some(text)) => span(text).is_some(),
            (SpanOrOff, Some(text)) => text == "off" || span(text).is_some(),
            (Word(words), Some(text)) => words.contains(&text),
            (_, None) => false,
        }
    }
}

/// In the words of an error.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number(least, most, counted) => write!(f, "a whole number from {least} to {most} ({counted})"),
            Span => f.write_str("a span of time such as 90s, 30m, 12h or 7d"),
            SpanOrOff => f.write_str("off, or a span of time such as 90s, 10m or 1h"),
            Loopback => f.write_str("127.0.0.1:PORT or [::1]:PORT, with 0 for any free port"),
            Word([others @ .., last]) => write!(f, "{} or {last}", others.join(", ")),
            Word([]) => Ok(()),
            Socket => write!(f, "an absolute path of at most {MAX_SOCKET_PATH} bytes"),
            File => f.write_str("the absolute path of a file"),
            Text(words) => f.write_str(words),
        }
    }
}

/// The settings that `program` reads.
pub fn of(program: &str) -> impl Iterator<Item = &'static Setting> {
    ALL.iter().filter(move |setting| setting.readers.contains(&program))
}

/// The settings of `program`, as its `--help` lists them.
pub fn help(program: &str) -> String {
    let line = |Setting { name, help, default, .. }: &Setting| {
        let default = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        format!("  {name:<26}  {help}{default}\n")
    };
    of(program).map(line).collect()
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value:?} cannot be used; allowed: {allowed}")]
pub struct InvalidSetting {
    variable: String,
    value: String,
    allowed: String,
}

impl InvalidSetting {
    pub fn new(variable: &str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        let value = value.into();
        let is_secret = variable == OPENAI_KEY.name && !value.is_empty();
        let value = if is_secret { "…".to_owned() } else { shown(&value) };
        Self { variable: variable.to_owned(), value, allowed: allowed.into() }
    }
}

/// A value as an error shows it: the beginning of a long one, and an address without its password.
fn shown(value: &str) -> String {
    let open = match value.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, rest)) => format!("{scheme}://…@{rest}"),
        None => value.to_owned(),
    };
    let is_long = open.chars().nth(MAX_SHOWN).is_some();
    open.chars().take(MAX_SHOWN).chain(is_long.then_some('…')).collect()
}

impl From<InvalidSetting> for Error {
    fn from(error: InvalidSetting) -> Self {
        Self::new(Code::InvalidRequest, error.to_string())
    }
}

/// The value of `variable`, if it is set and not empty.
pub fn raw(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// The value of `variable`, which belongs to another program.
pub fn text(variable: &str) -> Result<Option<String>, InvalidSetting> {
    raw(variable)
        .map(|value| value.into_string().map_err(|value| InvalidSetting::new(variable, value.to_string_lossy(), "text in UTF-8")))
        .transpose()
}

/// Reads a port with a loopback address that the broker's check of the header `Host` knows.
pub fn loopback(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    (address.ip() == Ipv4Addr::LOCALHOST || address.ip() == Ipv6Addr::LOCALHOST).then_some(address)
}

/// Reads a span of time: a whole number followed by `s`, `m`, `h` or `d`.
pub fn span(text: &str) -> Option<Duration> {
    let split = text.len().checked_sub(1)?;
    let (number, unit) = (text.get(..split)?, text.get(split..)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    // More than a century makes no sense, and the bound keeps sums of times from overflowing.
    let span = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (span > 0 && span <= 100 * 365 * 86_400).then(|| Duration::from_secs(span))
}

#[cfg(feature = "cli")]
/// An http or https URL with a host and without a query.
pub fn web_address(text: &str) -> Option<ureq::http::Uri> {
    let uri: ureq::http::Uri = text.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed() {
        let in_words = [&SOCKET, &METRICS, &IDLE_EXIT].map(|setting| setting.name);
        for setting in ALL.iter().filter(|setting| !in_words.contains(&setting.name)) {
            assert!(setting.allows(setting.default.as_ref()), "{setting:?}");
        }
        for line in [BROKER, SERVER, CLI].map(help).iter().flat_map(|help| help.lines()) {
            assert!(line.len() <= 100, "it fits a terminal: {line}");
        }
    }
}
