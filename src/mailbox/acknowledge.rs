//! Acknowledgements: a message was offered, announced, delivered or not shown.

use super::{
    InboxNews, Message, Result, Transaction,
    holder::{Kind, Shown},
    proof, release,
};
use crate::{
    db::{PeerRow, params, peers},
    wire::{Acknowledgement, MessageId, Outcome, PeerId, Route},
};

/// The route that held a message, and the lease, if the holder names it. A repeated acknowledgement may come after a later lease,
/// which must not end: two holders would show the message, both without a mark.
type Held<'a> = (Route, Option<&'a str>);

/// Records what `peer` did with messages by `route`; returns how many messages changed. Messages of other peers, and those
/// acknowledged before, stay unchanged.
pub fn acknowledge(tx: &mut Transaction<'_>, peer: &PeerId, route: Route, messages: Vec<Acknowledgement>) -> Result<u32> {
    let Some(row) = peers::get(tx, peer)? else { return Ok(0) };
    let (mut changed, mut written) = (0, Vec::new());
    for Acknowledgement { id, outcome, lease } in messages {
        let lease = lease.as_deref();
        let has_changed = match outcome {
            Outcome::Offered => offer(tx, &row, &id, route)?,
            Outcome::Announced => announce(tx, &row, &id, (route, lease))?,
            Outcome::Delivered => deliver(tx, peer, &id, route)?,
            Outcome::Released => put_back(tx, &row, &id, (route, lease))?,
        };
        if has_changed {
            changed += 1;
            written.extend((outcome != Outcome::Released).then_some(id));
        }
    }
    if changed > 0 && route != Route::Channel {
        tx.hint(peer); // later messages may go now
    }
    if route == Route::Inbox && !written.is_empty() {
        tx.inbox(peer, InboxNews::Written(written));
    }
    Ok(changed)
}

/// Records that `id` was pushed into the inbox or channel of the current agent process. If that route is trusted, no other
/// route hands the message over.
fn offer(tx: &mut Transaction<'_>, peer: &PeerRow, id: &MessageId, route: Route) -> Result<bool> {
    // If the hook runs, it proves each message separately.
    let trusted = peer.has_proved() && !(route == Route::Inbox && peer.confirms_each());
    let sql = "UPDATE message SET state = 1, route = ?4, offered_at = ?5, holder = 0, instance = NULL, lease = NULL,
                   pushed_by = ?6, again = ?7, waiting = ?8
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3
               AND (state = 0 OR ?4 = 'inbox' AND holder = 2)";
    let (agent, to, now) = (peer.agent_key(), peer.id.as_str(), tx.now.as_millis());
    let values = params![id.seq(), id.tag(), to, route.as_str(), now, agent, Shown::Pushed, !trusted];
    let has_changed = !tx.update(sql, values)?.is_empty();
    if has_changed && !trusted {
        tx.hint(&peer.id);
    }
    Ok(has_changed)
}

/// Records that only the beginning of `id` was handed over, so its full text still has to be shown.
fn announce(tx: &mut Transaction<'_>, peer: &PeerRow, id: &MessageId, (route, lease): Held<'_>) -> Result<bool> {
    let sql = "UPDATE message SET state = 1, route = ?4, offered_at = ?5, holder = 0, instance = NULL, lease = NULL, again = ?6,
                   handed = handed - 1, pushed_by = ?8
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND holder = ?7
               AND (?9 IS NULL OR lease = ?9)";
    let pushed_by = matches!(route, Route::Channel | Route::Inbox).then(|| peer.agent_key());
    let (to, now) = (peer.id.as_str(), tx.now.as_millis());
    let values = params![id.seq(), id.tag(), to, route.as_str(), now, Shown::Announced, Kind::of(route), pushed_by, lease];
    Ok(!tx.update(sql, values)?.is_empty())
}

/// Records that `id` certainly reached the model, even if the message has expired in the meantime.
pub(super) fn deliver(tx: &mut Transaction<'_>, peer: &PeerId, id: &MessageId, route: Route) -> Result<bool> {
    let sql =
        "UPDATE message SET state = 2, route = ?4, delivered_at = ?5, holder = 0, instance = NULL, lease = NULL, waiting = 0,
                   held_at = NULL
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND state <> 2";
    let values = params![id.seq(), id.tag(), peer.as_str(), route.as_str(), tx.now.as_millis()];
    Ok(!tx.update(sql, values)?.is_empty())
}

/// Records that `id` was taken but not shown. It waits again as if it had never been taken, under the rule as it is now.
fn put_back(tx: &mut Transaction<'_>, peer: &PeerRow, id: &MessageId, (route, lease): Held<'_>) -> Result<bool> {
    let sql = "UPDATE message SET holder = 0, instance = NULL, lease = NULL, handed = handed - 1
               WHERE seq = ?1 AND tag = ?2 AND to_peer = ?3 AND holder = ?4
               AND (?5 IS NULL OR lease = ?5)";
    let has_changed = tx.run(sql, params![id.seq(), id.tag(), peer.id.as_str(), Kind::of(route), lease])? > 0;
    if has_changed {
        release::apply_rule(tx, peer)?; // the peer looks again
    }
    Ok(has_changed)
}

/// Records that the user has read `id` at the command line, which acts for one of `readers`. Returns how many messages changed.
pub fn read_by_user(tx: &mut Transaction<'_>, readers: &[PeerId], id: &MessageId) -> Result<u32> {
    readers.iter().try_fold(0, |changed, reader| Ok(changed + u32::from(deliver(tx, reader, id, Route::CheckMessages)?)))
}

/// Records a run of the hook of `peer`. The messages in the prompt were let in, which proves the inbox if there is one. If `is_whole`
/// says that a text is too long for the inbox, only its beginning was let in, and the message still waits.
pub fn prompt(tx: &mut Transaction<'_>, peer: &PeerRow, messages: Vec<MessageId>, is_whole: fn(&str) -> bool) -> Result<()> {
    let route = if peer.has_door() || peer.channel { Route::Inbox } else { Route::ToolResult };
    if messages.is_empty() {
        tx.inbox(&peer.id, InboxNews::Prompted);
    } else if route == Route::Inbox && !peer.has_proved() {
        proof::note(tx, peer)?;
    }
    for id in messages {
        let message = Message::one(tx, "seq = ?1 AND tag = ?2 AND to_peer = ?3", params![id.seq(), id.tag(), peer.id.as_str()])?;
        // Only what was handed over can be in a prompt; anything else has another origin.
        if let Some(Message { receipt, text, .. }) = message.filter(|message| message.handed > 0) {
            if is_whole(&text) {
                deliver(tx, &peer.id, &id, route)?;
            } else if receipt.held.is_some() {
                release::let_in_part(tx, &id)?;
            }
        }
        tx.inbox(&peer.id, InboxNews::LetIn(id));
    }
    Ok(())
}
