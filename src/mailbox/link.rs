//! The column `link`, in which mail to and from other machines is marked; `db/migrations/0009-gateway.sql` says how.

use crate::{
    db::{self, PeerRow, Row, Tx, params, sqlite},
    wire::{MessageId, Timestamp},
};

/// `link` of a message that waits to be forwarded.
pub(super) const WAITS: i64 = 1;
/// `link` of a message from another machine that was told nothing yet, which is also what is added to a state that was told.
pub(super) const INCOMING: i64 = 10;

/// Marks a new message that is for or from a peer of another machine.
pub(super) fn mark(tx: &Tx<'_>, id: &MessageId, is_outgoing: bool, sender: Option<&PeerRow>) -> db::Result<()> {
    let is_incoming = sender.is_some_and(|sender| sender.machine.is_some());
    if is_outgoing || is_incoming {
        let link = if is_outgoing { WAITS } else { INCOMING };
        tx.run("UPDATE message SET link = ?2 WHERE seq = ?1", params![id.seq(), link])?;
    }
    Ok(())
}

/// When the message was forwarded to another machine, in the column `link`.
pub(super) fn read_forwarded(row: &Row<'_>, link: usize) -> sqlite::Result<Option<Timestamp>> {
    let forwarded = row.get::<_, Option<i64>>(link)?.filter(|link| *link < 0);
    Ok(forwarded.map(|link| Timestamp::from_millis(link.saturating_neg())))
}
