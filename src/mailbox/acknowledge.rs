//! Acknowledgements: a message was offered, announced, delivered, or not shown at all.

use super::{
    Effects, InboxNews,
    holder::{Kind, Shown},
    proof,
};
use crate::{
    db::{
        Result, Tx, params,
        peers::{self, PeerRow},
    },
    wire::{Acknowledgement, MessageId, Outcome, PeerId, Route, Timestamp},
};

/// Takes note of what `peer` did with messages by `route`; returns how many changed. A message that is not the peer's, or was
/// acknowledged before, does not.
pub fn acknowledge(
    tx: &Tx<'_>,
    peer: &PeerId,
    route: Route,
    acknowledged: Vec<Acknowledgement>,
    now: Timestamp,
) -> Result<(u32, Effects)> {
    let Some(row) = peers::get(tx, peer)? else { return Ok((0, Effects::default())) };
    let mut effects = Effects::waking(peer);
    let (mut changed, mut written) = (0, Vec::new());
    for Acknowledgement { id, outcome } in acknowledged {
        let has_changed = match outcome {
            Outcome::Offered => offer(tx, &row, &id, route, now, &mut effects)?,
            Outcome::Announced => announce(tx, &row, &id, route, now, &mut effects)?,
            Outcome::Delivered => deliver(tx, peer, &id, route, now, &mut effects)?,
            Outcome::Released => put_back(tx, peer, &id, route, &mut effects)?,
        };
        if has_changed {
            changed += 1;
            written.extend((outcome != Outcome::Released).then_some(id));
        }
    }
    if route != Route::Channel {
        effects.hint.insert(peer.clone()); // what waited behind these may go now
    }
    if route == Route::Inbox && !written.is_empty() {
        effects.inbox(peer, InboxNews::Written(written));
    }
    Ok((changed, effects))
}

/// `id` was pushed into the inbox or channel of the present agent process. If that is trusted, no other route hands it over.
fn offer(tx: &Tx<'_>, peer: &PeerRow, id: &MessageId, route: Route, now: Timestamp, effects: &mut Effects) -> Result<bool> {
    // Where the hook runs, it proves each message by itself.
    let trusted = peer.has_proved() && !(route == Route::Inbox && peer.has_hook());
    let sql = "UPDATE message SET state = 1, route = ?4, offered_at = ?5, holder = 0, instance = NULL, lease = NULL,
                   pushed_by = ?6, again = ?7, waiting = ?8
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3
               AND (state = 0 OR state = 1 AND waiting = 1 AND ?4 = 'inbox' AND holder = 2)";
    let (agent, to) = (peer.agent_key(), peer.id.as_str());
    let values = params![id.seq(), id.tag(), to, route.as_str(), now.as_millis(), agent, Shown::Pushed, !trusted];
    let has_changed = !effects.update(tx, sql, values)?.is_empty();
    if has_changed && !trusted {
        effects.hint.insert(peer.id.clone());
    }
    Ok(has_changed)
}

/// Only the beginning of `id` was handed over: its text has not been shown.
fn announce(tx: &Tx<'_>, peer: &PeerRow, id: &MessageId, route: Route, now: Timestamp, effects: &mut Effects) -> Result<bool> {
    let sql = "UPDATE message SET state = 1, route = ?4, offered_at = coalesce(offered_at, ?5), holder = 0, instance = NULL,
                   lease = NULL, again = ?6, handed = max(handed - 1, 0), pushed_by = coalesce(?8, pushed_by)
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state < 2 AND waiting = 1 AND holder = ?7";
    let (agent, to) = ((route == Route::Channel).then(|| peer.agent_key()), peer.id.as_str());
    let values = params![id.seq(), id.tag(), to, route.as_str(), now.as_millis(), Shown::Announced, Kind::of(route), agent];
    let has_changed = !effects.update(tx, sql, values)?.is_empty();
    if has_changed {
        effects.hint.insert(peer.id.clone());
    }
    Ok(has_changed)
}

/// `id` was handed to the model for certain. Says so even of a message that had expired meanwhile: it is the truth.
pub(super) fn deliver(
    tx: &Tx<'_>,
    peer: &PeerId,
    id: &MessageId,
    route: Route,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<bool> {
    let sql =
        "UPDATE message SET state = 2, route = ?4, delivered_at = ?5, holder = 0, instance = NULL, lease = NULL, waiting = 0,
                   held_at = NULL
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state <> 2";
    effects.wake.insert(peer.clone());
    let values = params![id.seq(), id.tag(), peer.as_str(), route.as_str(), now.as_millis()];
    Ok(!effects.update(tx, sql, values)?.is_empty())
}

/// `id` was taken but not shown: it waits again as if never taken.
fn put_back(tx: &Tx<'_>, peer: &PeerId, id: &MessageId, route: Route, effects: &mut Effects) -> Result<bool> {
    let sql = "UPDATE message SET holder = 0, instance = NULL, lease = NULL, handed = max(handed - 1, 0)
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND waiting = 1 AND holder = ?4";
    let changed = tx.run(sql, params![id.seq(), id.tag(), peer.as_str(), Kind::of(route)])? > 0;
    if changed {
        effects.hint.insert(peer.clone());
    }
    Ok(changed)
}

/// The user has read `id` at the command line, which stands for one of `readers`; returns how many messages changed.
pub fn read_by_user(tx: &Tx<'_>, readers: &[PeerId], id: &MessageId, now: Timestamp) -> Result<(u32, Effects)> {
    let (mut changed, mut effects) = (0, Effects::default());
    for reader in readers {
        changed += u32::from(deliver(tx, reader, id, Route::CheckMessages, now, &mut effects)?);
    }
    Ok((changed, effects))
}

/// The prompt hook of the client of `peer` ran. The messages that its prompt holds were let in, which proves the inbox. Of one
/// that was only announced, the beginning was: that one still waits.
pub fn prompt(tx: &Tx<'_>, peer: &PeerRow, messages: Vec<MessageId>, now: Timestamp) -> Result<Effects> {
    let mut effects = Effects::waking(&peer.id);
    if messages.is_empty() {
        effects.inbox(&peer.id, InboxNews::Prompted);
    } else if !peer.has_proved() {
        proof::note(tx, peer, now, &mut effects)?;
    }
    let sql =
        "SELECT again < 2 AND (handed > 0 OR held_at IS NOT NULL) FROM message WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3";
    for id in messages {
        if tx.one(sql, params![id.seq(), id.tag(), peer.id.as_str()], |row| row.get(0))? == Some(true) {
            deliver(tx, &peer.id, &id, Route::Inbox, now, &mut effects)?;
        }
        effects.inbox(&peer.id, InboxNews::LetIn(id));
    }
    Ok(effects)
}
