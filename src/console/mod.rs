//! Output as text or JSON, failures, exit codes.

pub mod exit;
pub mod out;
pub mod report;
