//! What a person at a terminal meets whatever they run: output as text or JSON, failures, exit codes.

pub mod exit;
pub mod out;
