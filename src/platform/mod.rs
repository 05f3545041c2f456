//! The operating system: paths, settings, processes, socket owners, git, time, randomness, other programs.

#[cfg(any(feature = "cli", feature = "dbus", feature = "link", target_os = "macos"))]
pub mod call;
#[cfg(any(feature = "cli", feature = "link", feature = "mcp"))]
pub mod children;
pub mod clock;
pub mod files;
#[cfg(feature = "broker")]
pub mod folders;
pub mod git;
pub mod kernel;
#[cfg(any(feature = "broker", feature = "link"))]
pub mod manager;
#[cfg(feature = "broker")]
pub mod memory;
pub mod mounted;
pub mod paths;
pub mod process;
pub mod random;
mod reftable;
#[cfg(feature = "broker")]
pub mod remote;
#[cfg(feature = "cli")]
pub mod retry;
pub mod settings;
