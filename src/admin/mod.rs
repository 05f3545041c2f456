//! What keeps it running: `setup`, `doctor`, `update`, `stop`, and the service managers they speak to.

pub mod demo;
pub mod doctor;
mod manager;
pub mod setup;
pub mod stop;
pub mod update;
