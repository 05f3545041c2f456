//! What every handler can reach.

use crate::{broker::Broker, wire::ListenerStatus};
use axum::extract::State;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct App {
    pub broker: Arc<Broker>,
    pub listeners: Vec<ListenerStatus>,
}

pub(super) type AppState = State<Arc<App>>;
