//! The MCP server that a session of a coding agent starts: speaks MCP over stdin and stdout, and to the broker over its socket.

use std::{
    io::{Write, stderr, stdout},
    process::ExitCode,
};
use tokio::runtime::{Builder, LocalOptions};

fn main() -> ExitCode {
    let name = env!("CARGO_BIN_NAME");
    let outcome = match std::env::args_os().nth(1) {
        None => serve(),
        Some(word) if word == "--version" || word == "-V" => writeln!(stdout(), "{name} {}", env!("CARGO_PKG_VERSION")),
        Some(other) => {
            let _ =
                writeln!(stderr(), "{name}: unknown argument {other:?}; it takes none, or --version. Coding agents start it.");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "{name}: starting: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread is enough, and a local runtime is the smallest: it leaves out the scheduler for many threads. The end does not wait for
/// a blocked read of a terminal.
fn serve() -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(claude_peers::session::run());
    runtime.shutdown_background();
    Ok(())
}
