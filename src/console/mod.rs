//! Output as text or JSON, failures, exit codes.

mod exit;
mod fit;
mod out;
mod report;
mod time;

pub use exit::{EXIT_CODES, Exit, Failure, LIMITS, Report, UNSET};
pub use fit::Column;
pub use out::{Field, Look, Out, Tone, ago, size, span};
pub use report::{Columns, Row};
pub use time::{brief, day};
