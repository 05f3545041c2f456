//! Gemini CLI: how it is set up, and our hook, which brings messages beside results and prompts.

#[cfg(feature = "cli")]
mod agent;
pub mod hook;

#[cfg(feature = "cli")]
pub use agent::AGENT;
