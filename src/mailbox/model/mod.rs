//! The mailbox against its promises, in all orders of events.

mod enabled;
mod exhaustive;
mod operation;
mod promises;
mod random;
mod requests;
mod rest;
mod runs;
mod steps;
mod tables;
mod takes;
mod world;
