//! The rule of order: fresh messages to a peer are handed over in the order of their acceptance. While a holder has some of
//! them, no other holder gets later ones. Messages that were shown before are not fresh. Held messages are exempt.

use super::Holder;
use crate::{
    db::{Result, View, params},
    wire::PeerId,
};

/// The first place that `holder` may not lease: that of the oldest fresh message to `peer` with another holder, or the end. A
/// holder whose process no longer serves the peer gets no messages; what other processes held is free since the last registration.
pub(super) fn barrier(view: &View<'_>, peer: &PeerId, holder: &Holder) -> Result<i64> {
    if !serves(view, peer, holder.instance())? {
        return Ok(0);
    }
    let sql = "SELECT coalesce(min(seq), 9223372036854775807) FROM message INDEXED BY message_fresh
               WHERE to_peer = ?1 AND waiting = 1 AND again = 0 AND holder > 0
               AND lease IS NOT ?2";
    view.get(sql, params![peer.as_str(), holder.lease()])
}

/// Whether a message accepted now may go to the stream of `instance` at once. For that, the process must serve the peer, and its
/// stream must hold all earlier fresh messages. Costs a few index seeks, regardless of how many messages wait.
pub(super) fn is_next_for_stream(view: &View<'_>, peer: &PeerId, instance: &str) -> Result<bool> {
    let sql = "WITH fresh AS (SELECT holder, held_at FROM message WHERE to_peer = ?1 AND waiting = 1 AND again = 0)
               SELECT NOT (EXISTS (SELECT 1 FROM fresh WHERE holder = 0 AND held_at IS NULL)
                   OR EXISTS (SELECT 1 FROM fresh WHERE holder = 2))";
    Ok(serves(view, peer, instance)? && view.get(sql, [peer.as_str()])?)
}

/// Whether `instance` is the process that serves `peer`. Another process must get no lease: it could outlive that process, as
/// only the next registration ends earlier leases.
fn serves(view: &View<'_>, peer: &PeerId, instance: &str) -> Result<bool> {
    view.get("SELECT EXISTS (SELECT 1 FROM peer WHERE id = ?1 AND instance = ?2)", [peer.as_str(), instance])
}
