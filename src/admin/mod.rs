//! Installation and maintenance: `setup`, `doctor`, `update`, `start`, `stop`, `logs`, the service managers, and trials with the real programs.

pub mod demo;
pub mod doctor;
pub mod logs;
mod manager;
pub mod place;
mod probe;
pub mod setup;
pub mod start;
pub mod stop;
pub mod update;
