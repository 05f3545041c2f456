//! Numbers for a monitoring system, as OpenMetrics text.
//!
//! Promises: the text has only numbers and the protocol's own words, no names, ids, paths or texts. The number of series does not grow
//! with peers or messages. Counting changes a number in memory.

use crate::{
    db::Store,
    mailbox::MessageChange,
    wire::{Code, MessageState, Route, Status, Timestamp},
};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};
use std::fmt;

/// The upper bounds of the delivery histogram's buckets, in seconds: from at once to a day.
const DELIVERY_SECONDS: [f64; 11] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 14_400.0, 86_400.0];
/// The label of a message that no route has tried to hand over.
const NO_ROUTE: &str = "none";

/// The labels of a series: names and values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The counters, and the gauges that are set at a scrape.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    messages: Family<Labels<2>, Counter>,
    delivery: Family<Labels<1>, Histogram, fn() -> Histogram>,
    refused_messages: Family<Labels<1>, Counter>,
    refused_requests: Family<Labels<1>, Counter>,
    peers: Family<Labels<1>, Gauge>,
    waiting: Gauge,
    database: Gauge,
}

impl Metrics {
    /// All counters at zero. `store` counts the commits.
    pub fn of(store: &Store) -> Self {
        let mut registry = Registry::with_prefix("claude_peers");
        let messages = registered(&mut registry, "messages", "Changes of messages, by the new state and the last route");
        let delivery: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(DELIVERY_SECONDS));
        let help = "Time from the acceptance of a message to its delivery, by route";
        registry.register_with_unit("delivery", help, Unit::Seconds, delivery.clone());
        let refused_messages = registered(&mut registry, "refused_messages", "Messages that were not accepted, by error code");
        let help = "HTTP requests that were answered with an error, by error code";
        let refused_requests = registered(&mut registry, "refused_requests", help);
        let help = "Time of transactions that changed something, fsync included";
        registry.register_with_unit("commit", help, Unit::Seconds, store.commits().clone());
        let peers = registered(&mut registry, "peers", "Known peers, by status");
        let waiting = registered(&mut registry, "waiting_messages", "Messages that wait for peers");
        let database = Gauge::default();
        registry.register_with_unit("database", "Size of the database with its side files", Unit::Bytes, database.clone());
        let all = Self { registry, messages, delivery, refused_messages, refused_requests, peers, waiting, database };
        all.begin_at_zero();
        all
    }

    /// Creates every counter series at zero: Prometheus does not see the first increase of a new series.
    fn begin_at_zero(&self) {
        let routes = || Route::ALL.iter().map(|route| route.as_str()).chain([NO_ROUTE]);
        for (state, route) in MessageState::ALL.iter().flat_map(|state| routes().map(move |route| (state.as_str(), route))) {
            drop(self.messages.get_or_create(&[("state", state), ("route", route)]));
        }
        for code in Code::ALL {
            drop(self.refused_messages.get_or_create(&[("reason", code.as_str())]));
            drop(self.refused_requests.get_or_create(&[("reason", code.as_str())]));
        }
    }

    /// Counts a committed change of a message.
    pub fn message(&self, change: &MessageChange, now: Timestamp) {
        let route = change.route.map_or(NO_ROUTE, Route::as_str);
        self.messages.get_or_create(&[("state", change.state.as_str()), ("route", route)]).inc();
        if change.state == MessageState::Delivered {
            let millis = u32::try_from(now.as_millis().saturating_sub(change.sent_at.as_millis()).max(0)).unwrap_or(u32::MAX);
            self.delivery.get_or_create(&[("route", route)]).observe(f64::from(millis) / 1_000.0);
        }
    }

    /// Counts a message that was not accepted.
    pub fn refused_message(&self, code: Code) {
        self.refused_messages.get_or_create(&[("reason", code.as_str())]).inc();
    }

    /// Counts a request that was answered with an error.
    pub fn refused_request(&self, code: Code) {
        self.refused_requests.get_or_create(&[("reason", code.as_str())]).inc();
    }

    /// All metrics as text. The caller looks up the gauges: the status of each peer, the number of waiting messages, and the bytes of the
    /// database.
    pub fn text(&self, present: &[Status], waiting: u64, bytes: u64) -> Result<String, fmt::Error> {
        for status in Status::ALL {
            let count = present.iter().filter(|present| *present == status).count();
            self.peers.get_or_create(&[("status", status.as_str())]).set(gauge(count));
        }
        self.waiting.set(gauge(waiting));
        self.database.set(gauge(bytes));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn gauge(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
