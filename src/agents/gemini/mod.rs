//! Gemini CLI: how it is set up, our hook, which brings messages beside results and prompts, and how an idle session is woken.

mod agent;
mod doorbell;
pub mod hook;

pub use agent::AGENT;
