//! Which process serves a peer. When another one does, what the earlier ones hold waits again, and so does what they may have lost.

use super::{Result, Transaction, lease, proof, release};
use crate::db::{PeerRow, peers};

/// Stores the row of a peer that a process serves from now on, and applies its rule to what waits.
pub fn serve(tx: &mut Transaction<'_>, peer: &PeerRow) -> Result<()> {
    leave(tx, peer)?;
    release::apply_rule(tx, peer)?;
    proof::mark_uncertain(tx, peer)
}

/// Stores the row of a peer that its process serves no more: the process serves another one.
pub fn leave(tx: &Transaction<'_>, peer: &PeerRow) -> Result<()> {
    peers::put(tx, peer)?;
    lease::end_leases(tx, peer)
}
