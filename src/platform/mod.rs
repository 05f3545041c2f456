//! What the operating system tells: paths, settings, processes, sockets' owners, git; and running other programs.

#[cfg(feature = "cli")]
pub mod call;
pub mod git;
pub mod kernel;
pub mod paths;
pub mod process;
#[cfg(feature = "cli")]
pub mod retry;
pub mod settings;
