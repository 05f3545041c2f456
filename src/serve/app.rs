//! State shared by all handlers.

use super::containers::Containers;
use crate::{broker::Broker, wire::ListenerStatus};
use axum::extract::State;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How much a JSON string can grow through escapes (`\u0001` for one byte), and room for the other fields.
const ESCAPES: usize = 6;
const OTHER_FIELDS: usize = 64 * 1024;
/// Memory for all request bodies together, in bytes. It grows only if a single body may be larger.
const BODIES: usize = 8 * 1024 * 1024;

/// How many large answers are under way at once (`answers`).
const ANSWERS: usize = 4;
/// How many people, or programs of theirs, may watch at once.
const WATCHERS: usize = 64;

#[derive(Debug)]
pub(super) struct App {
    pub broker: Arc<Broker>,
    pub listeners: Vec<ListenerStatus>,
    pub containers: Containers,
    /// The free memory for bodies, in bytes.
    pub bodies: Arc<Semaphore>,
    /// The same for the requests of all containers, which cannot take it from others.
    pub bodies_of_containers: Arc<Semaphore>,
    /// The free places for large answers, and those for the answers to containers.
    pub answers: Arc<Semaphore>,
    pub answers_of_containers: Arc<Semaphore>,
    /// The free places for watching people: each may have a message of full size on its way.
    pub watchers: Arc<Semaphore>,
    /// The largest body that is read: the longest text fits in any spelling.
    pub largest_body: usize,
}

pub(super) type AppState = State<Arc<App>>;

impl App {
    pub fn new(broker: Arc<Broker>, listeners: Vec<ListenerStatus>, containers: Containers) -> Self {
        let largest_body = broker.limits().text_bytes.saturating_mul(ESCAPES).saturating_add(OTHER_FIELDS);
        let bodies = || Arc::new(Semaphore::new(BODIES.max(largest_body).min(Semaphore::MAX_PERMITS)));
        let answers = || Arc::new(Semaphore::new(ANSWERS));
        Self {
            broker,
            listeners,
            containers,
            bodies: bodies(),
            bodies_of_containers: bodies(),
            answers: answers(),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            answers_of_containers: answers(),
            largest_body,
        }
    }
}
