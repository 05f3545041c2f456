//! Output as text or JSON, failures, exit codes.

pub mod exit;
pub mod out;
pub mod report;

pub use exit::{Exit, Failure};
pub use out::{Field, Look, Out, Tone};
