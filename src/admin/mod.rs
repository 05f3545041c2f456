//! Installation and maintenance: `setup`, `doctor`, `update`, `stop`, the service managers, and trials with the real programs.

pub mod demo;
pub mod doctor;
mod manager;
mod probe;
pub mod setup;
pub mod stop;
pub mod update;
