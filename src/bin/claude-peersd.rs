//! The broker: reads its settings, takes its sockets, serves until told to stop.

use clap::Parser;
use claude_peers::{
    db,
    serve::{self, Config, ServeError, listen, log},
    wire::{BrokerExit, DatabaseState},
};
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The claude-peers broker: lets the coding-agent sessions of this user find each other and talk.
///
/// Runs until SIGTERM or SIGINT. Usually started by its sockets through systemd or launchd; run by hand it binds them itself.
#[derive(Debug, Parser)]
#[command(name = "claude-peersd", version, after_help = after_help())]
struct Args {
    /// Look at the database, print what is found as one line of JSON and end; changes nothing, also beside a running broker
    #[arg(long)]
    check_database: bool,
}

fn after_help() -> String {
    let codes: String = BrokerExit::ALL.iter().map(|exit| format!("  {}  {}\n", *exit as u8, exit.meaning())).collect();
    format!(
        "\
Environment:
{}
Exit codes:
{codes}
With --check-database:
  0  the database is sound, or there is none yet
  1  it is damaged, or cannot be read or written
  2  a setting or argument cannot be used
  4  it was written by a newer version",
        Config::help()
    )
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
            error.exit_code().into()
        }
    }
}

fn check_database() -> ExitCode {
    let path = match Config::from_env() {
        Ok(config) => config.database,
        Err(error) => {
            say(&error);
            return BrokerExit::InvalidSetting.into();
        }
    };
    let report = db::check(&path);
    let written = serde_json::to_string(&report).map_err(io::Error::from).and_then(|json| writeln!(io::stdout(), "{json}"));
    if let Err(error) = written {
        say(&error);
        return ExitCode::FAILURE;
    }
    match report.state {
        DatabaseState::Ok | DatabaseState::Missing => ExitCode::SUCCESS,
        DatabaseState::TooNew => BrokerExit::NewerDatabase.into(),
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
