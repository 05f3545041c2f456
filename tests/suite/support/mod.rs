//! What every test needs: its own broker, MCP sessions, HTTP and git repositories.

pub mod activation;
pub mod agent;
pub mod broker;
#[cfg(all(feature = "dbus", target_os = "linux"))]
pub mod bus;
#[cfg(target_os = "linux")]
pub mod container;
#[cfg(all(feature = "dbus", target_os = "linux"))]
pub mod dunst;
pub mod events;
pub mod git;
pub mod http;
pub mod managed;
pub mod mcp;
pub mod mount;
pub mod other;
pub mod plugin;
pub mod random;
pub mod terminal;

pub use broker::Broker;
pub use mcp::Session;

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

/// How long an event may take before a test gives up. It is generous, because it only limits hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this program is installed. Without it a test is skipped, which is said; with `CLAUDE_PEERS_HOST_TESTS=required` that is a
/// failure.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    assert!(std::env::var_os("CLAUDE_PEERS_HOST_TESTS").is_none_or(|value| value != "required"), "{program} is missing");
    eprintln!("SKIPPED: there is no {program}");
    false
}

/// A port for a server that is started later, given once. The kernel gives ports from 32768 on to connections and other listeners, so
/// it is a lower one.
pub fn unused_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 100) as u16 * 100; // tests in other processes have other ports
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.take(100).find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).expect("one of a hundred ports is unused")
}

/// Polls `condition` until it returns something, for facts that no event announces.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A temporary folder that only this user can enter.
pub fn folder() -> tempfile::TempDir {
    folder_in(&std::env::temp_dir())
}

/// Such a folder under `place`.
pub fn folder_in(place: &std::path::Path) -> tempfile::TempDir {
    tempfile::Builder::new().prefix("claude-peers-test-").tempdir_in(place).unwrap()
}
