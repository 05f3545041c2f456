//! The broker: reads its settings, takes its sockets, serves until told to stop.

use clap::Parser;
use claude_peers::{
    db,
    serve::{self, Config, ServeError, listen, log},
    wire::DatabaseState,
};
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The claude-peers broker: lets the coding-agent sessions of this user find each other and talk.
///
/// Runs until SIGTERM or SIGINT. Usually started by its sockets through systemd or launchd; run by hand it binds them itself.
#[derive(Debug, Parser)]
#[command(
    name = "claude-peersd",
    version,
    after_help = "\
Environment:
  CLAUDE_PEERS_SOCKET         Unix socket [$XDG_RUNTIME_DIR/claude-peers/broker.sock]
  CLAUDE_PEERS_PORT           TCP port on 127.0.0.1, 0 for any free one [7899]
  CLAUDE_PEERS_DB             database [~/.claude-peers.db]
  CLAUDE_PEERS_LOG            error, warn, info, debug or trace [info]
  CLAUDE_PEERS_RATE_LIMIT     messages a minute per sender, 0: rate and repeats unlimited [120]
  CLAUDE_PEERS_RATE_BURST     messages at once per sender [30]
  CLAUDE_PEERS_REPEAT_LIMIT   the same text to the same peer, times a minute [3]
  CLAUDE_PEERS_TEXT_LIMIT     bytes of a message [262144]
  CLAUDE_PEERS_SUMMARY_LIMIT  characters of a summary [1000]
  CLAUDE_PEERS_WAITING_LIMIT  messages waiting for one recipient [1000]
  CLAUDE_PEERS_EXPIRY         how long undelivered mail waits [7d]
  CLAUDE_PEERS_IDLE_EXIT      how long to stay without connections, or off [10m under systemd]
  CLAUDE_PEERS_HISTORY        how long ended messages are kept [30d]
  DBUS_SESSION_BUS_ADDRESS    session bus [$XDG_RUNTIME_DIR/bus, if it is there]

Exit codes:
  0  stopped as asked
  1  failure
  2  a setting or argument cannot be used
  3  another broker is at work on this socket or database
  4  the database was written by a newer version

With --check-database:
  0  the database is sound, or there is none yet
  1  it is damaged, or cannot be read or written
  2  a setting or argument cannot be used
  4  it was written by a newer version"
)]
struct Args {
    /// Look at the database, print what is found as one line of JSON and end; changes nothing, also beside a running broker
    #[arg(long)]
    check_database: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.check_database {
        return check_database();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn check_database() -> ExitCode {
    let path = match Config::from_env() {
        Ok(config) => config.database,
        Err(error) => {
            say(&error);
            return ExitCode::from(2);
        }
    };
    let report = db::check(&path);
    let written = serde_json::to_string(&report).map_err(io::Error::from).and_then(|json| writeln!(io::stdout(), "{json}"));
    if let Err(error) = written {
        say(&error);
        return ExitCode::FAILURE;
    }
    match report.state {
        DatabaseState::Sound | DatabaseState::Missing => ExitCode::SUCCESS,
        DatabaseState::TooNew => ExitCode::from(4),
        DatabaseState::Damaged | DatabaseState::NotWritable | DatabaseState::Unreadable => ExitCode::FAILURE,
    }
}

fn run() -> Result<(), ServeError> {
    // Before any thread starts: the umask (every file of ours is 0600 from its first moment) and the inherited sockets.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = log::start() {
        say(&error);
        return Err(error.into());
    }
    let given = listen::given()?;
    let config = Config::from_env()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| ServeError::System { doing: "starting the runtime", source })?;
    runtime.block_on(serve::run(config, given))
}

/// For errors where there is no log.
#[expect(clippy::print_stderr, reason = "there is no log")]
fn say(error: &dyn std::error::Error) {
    eprintln!("claude-peersd: {error}");
}
