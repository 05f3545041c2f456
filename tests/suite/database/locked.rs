//! While another process holds the database's lock, senders hear so in time, and the broker lives on.

use crate::support::{Broker, PATIENCE, Session, events::Peer, folder};
use rusqlite::Connection;
use serde_json::json;
use std::{thread, time::Duration};

#[test]
fn senders_hear_that_another_process_holds_the_lock() {
    let (broker, place) = (Broker::with(&[("WATCHDOG_USEC", "200000")]), folder());
    let mut session = Session::pulling(&broker, place.path(), "session");
    let reader = Peer::register(&broker.http(), "reader", json!({}));
    session.send(&reader.id, "before");
    let other = Connection::open(broker.database()).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The writer feeds the watchdog, so silence shows that it waits for the lock.
    while broker.tells_within(Duration::from_secs(1)).is_some() {}

    let send = |text: &str| broker.http().post("/v1/send", &json!({"to": reader.id, "text": text}));
    let (answers, told) = thread::scope(|scope| {
        let told = scope.spawn(|| session.tool_error("send_message", json!({"targetPeerId": reader.id, "message": "a call"})));
        let sends = ["one", "two", "three"].map(|text| scope.spawn(move || send(text)));
        (sends.map(|send| send.join().unwrap()), told.join().unwrap())
    });
    let database = broker.database().display().to_string();
    for answer in &answers {
        assert_eq!((answer.status, answer.code().as_str()), (503, "database_locked"), "{}", answer.body);
        assert!(answer.body.contains(&database) && answer.body.contains("nothing was stored"), "{}", answer.body);
    }
    assert!(told.contains("another process holds the lock of the database") && told.contains(&database), "{told}");
    // Those who came during the first wait did not wait again.
    assert_eq!(broker.log().matches("WARN another process holds the lock").count(), 1, "{}", broker.log());
    // Another broker could do no more, so the service manager must not replace this one.
    broker.tells_that("WATCHDOG=1");
    assert_eq!(broker.http().get("/v1/status").json()["database"]["messages"], 1);

    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(send("after").json()["state"], "queued");
    assert_eq!(broker.stored().0, 2, "what was refused is not stored");
}
