//! Output as text or JSON, failures, exit codes.

pub mod exit;
pub mod fit;
pub mod out;
pub mod report;
mod time;

pub use exit::{Exit, Failure};
pub use fit::Column;
pub use out::{Field, Look, Out, Tone};
pub use time::{brief, day};
