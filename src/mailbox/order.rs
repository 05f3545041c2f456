//! The rule of order: fresh messages to a peer are handed over in the order of their acceptance. While a holder has some of
//! them, no other holder gets later ones. Messages that were shown before are not fresh. Held messages are exempt.

use super::Holder;
use crate::{
    db::{Result, View, params},
    wire::PeerId,
};

/// The first place that `holder` may not lease: that of the oldest fresh message to `peer` with another holder, or the end. A
/// holder whose process no longer serves the peer gets no messages.
pub(super) fn barrier(view: &View<'_>, peer: &PeerId, holder: &Holder) -> Result<i64> {
    if !serves(view, peer, holder.instance())? {
        return Ok(0);
    }
    let sql = "SELECT coalesce(min(seq), 9223372036854775807) FROM message INDEXED BY message_fresh
               WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND holder > 0
               AND (holder <> ?2 OR instance IS NOT ?3 OR lease IS NOT ?4)";
    view.get(sql, params![peer.as_str(), holder.kind(), holder.instance(), holder.lease()])
}

/// Whether a message accepted now may go to the stream of `instance` at once. For that, the process must serve the peer, and its
/// stream must hold all earlier fresh messages. Costs a few index seeks, regardless of how many messages wait.
pub(super) fn is_next_for_stream(view: &View<'_>, peer: &PeerId, instance: &str) -> Result<bool> {
    let sql = "WITH fresh AS (SELECT holder, instance, held_at FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0)
               SELECT NOT (EXISTS (SELECT 1 FROM fresh WHERE holder = 0 AND held_at IS NULL)
                   OR EXISTS (SELECT 1 FROM fresh WHERE holder = 2)
                   OR EXISTS (SELECT 1 FROM fresh WHERE holder = 1 AND instance < ?2)
                   OR EXISTS (SELECT 1 FROM fresh WHERE holder = 1 AND instance > ?2))";
    Ok(serves(view, peer, instance)? && view.get(sql, [peer.as_str(), instance])?)
}

/// Whether `instance` is the process that serves `peer`. Another process must get no lease: it could outlive that process, as
/// only the next registration ends earlier leases.
fn serves(view: &View<'_>, peer: &PeerId, instance: &str) -> Result<bool> {
    view.get("SELECT EXISTS (SELECT 1 FROM peer WHERE id = ?1 AND instance = ?2)", [peer.as_str(), instance])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        db::{peers, testing},
        mailbox::{
            Transaction,
            accept::{self, NewMessage, Terms},
            acknowledge::acknowledge,
            lease::{self, Claim, Taker},
            message::read_id,
        },
        wire::{Acknowledgement, Outcome, Route, Timestamp},
    };
    use proptest::{collection::vec, prelude::*};
    use std::{sync::Arc, time::Duration};

    const NOW: Timestamp = Timestamp::from_millis(1);

    #[derive(Debug, Clone)]
    enum Step {
        Accept { stream_is_open: bool },
        Lease { taker: Taker, messages: u32 },
        AcknowledgeOldest(Outcome),
        Register,
    }

    fn step() -> impl Strategy<Value = Step> {
        let inbox = |agent: &str| Taker::Inbox(agent.to_owned());
        let takers = vec![Taker::Stream, Taker::Result, Taker::Check, inbox("0"), inbox("other")];
        let outcomes = vec![Outcome::Offered, Outcome::Announced, Outcome::Delivered, Outcome::Released];
        prop_oneof![
            4 => any::<bool>().prop_map(|stream_is_open| Step::Accept { stream_is_open }),
            3 => (proptest::sample::select(takers), 1_u32..4).prop_map(|(taker, messages)| Step::Lease { taker, messages }),
            3 => proptest::sample::select(outcomes).prop_map(Step::AcknowledgeOldest),
            1 => Just(Step::Register),
        ]
    }

    /// A fresh message: its place and its holder.
    type Fresh = (i64, (i64, Option<String>, Option<String>));

    fn fresh(view: &View<'_>) -> Vec<Fresh> {
        let sql = "SELECT seq, holder, instance, lease FROM message WHERE waiting = 1 AND again = 0 ORDER BY seq";
        view.all(sql, [], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))).unwrap()
    }

    fn peer() -> PeerId {
        "recipient".parse().unwrap()
    }

    /// Registers the recipient, served by `instance`.
    fn register(tx: &mut Transaction<'_>, instance: &str) {
        let row = peers::PeerRow::new(peer(), "name".to_owned(), "/".to_owned(), NOW);
        peers::put(tx, &peers::PeerRow { instance: instance.to_owned(), ..row }).unwrap();
        lease::end_leases(tx, &peer(), instance).unwrap();
    }

    fn go(tx: &mut Transaction<'_>, step: Step, number: usize, instance: &mut String) {
        match step {
            Step::Accept { stream_is_open } => {
                let [tag, text] = ["abcdef", "text"].map(str::to_owned);
                let new = NewMessage::new(tag, "cli".parse().unwrap(), peer(), text, NOW, Duration::ZERO);
                let new = NewMessage { stream: stream_is_open.then(|| instance.clone()), ..new };
                accept::accept(tx, vec![new], Terms { by_user: true, names_question: false, most_waiting: 1_000 }).unwrap();
            }
            Step::Lease { taker, messages } => {
                let instance = instance.clone();
                let holder = match taker {
                    Taker::Stream => Holder::Stream { instance },
                    _ => Holder::Take { instance, lease: number.to_string() },
                };
                lease::lease(
                    tx,
                    &Claim { peer: peer(), holder, taker, messages, bytes: usize::MAX, is_outdated: Arc::default() },
                )
                .unwrap();
            }
            Step::AcknowledgeOldest(outcome) => {
                let sql = "SELECT seq, tag, holder FROM message WHERE holder > 0 ORDER BY seq LIMIT 1";
                let oldest = tx.one(sql, [], |row| Ok((read_id(row)?, row.get::<_, i64>(2)?)));
                if let Some((id, holder)) = oldest.unwrap() {
                    let route = if holder == 1 { Route::Channel } else { Route::CheckMessages };
                    acknowledge(tx, &peer(), route, vec![Acknowledgement { id, outcome, lease: None }]).unwrap();
                }
            }
            Step::Register => {
                *instance = number.to_string();
                register(tx, instance);
            }
        }
    }

    proptest! {
        /// A holder gets a fresh message only if it holds all older fresh messages.
        #[test]
        fn fresh_mail_is_handed_over_in_order(steps in vec(step(), 1..40)) {
            let connection = testing::memory();
            let tx = testing::tx(&connection);
            let (mut tx, mut instance) = (Transaction::new(&tx, NOW), "0".to_owned());
            register(&mut tx, &instance);
            for (number, step) in steps.into_iter().enumerate() {
                let before = fresh(&tx);
                go(&mut tx, step.clone(), number, &mut instance);
                let after = fresh(&tx);
                for (place, holder) in after.iter().filter(|fresh| fresh.1.0 > 0 && !before.contains(fresh)) {
                    let older = after.iter().filter(|(other, _)| other < place);
                    prop_assert!(older.clone().all(|(_, other)| other == holder), "{step:?} gave {place} of {after:?}");
                }
            }
        }
    }

    #[test]
    fn process_that_no_longer_serves_gets_nothing() {
        let connection = testing::memory();
        let tx = testing::tx(&connection);
        let (mut tx, mut instance) = (Transaction::new(&tx, NOW), "old".to_owned());
        register(&mut tx, "new");
        go(&mut tx, Step::Accept { stream_is_open: true }, 0, &mut instance);
        go(&mut tx, Step::Lease { taker: Taker::Check, messages: 1 }, 1, &mut instance);
        assert_eq!(fresh(&tx), [(1, (0, None, None))]);
    }
}
