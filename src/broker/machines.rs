//! Other machines: which of their peers can be reached, and what is remembered of them.
//!
//! A machine's peers are there as long as it announces them. Their rows stay when they are gone, as those of all peers do, so mail can
//! wait for them. Of one machine a limited number is remembered: a new peer displaces the one that is gone the longest, unless mail to or
//! from that one is under way.

use super::{
    core::Broker,
    identity::{check_path, check_words},
    machine::Machine,
    peer::Peer,
    roster::Roster,
};
use crate::{
    db::{Durability, PeerRow, peers},
    platform::clock,
    wire::{
        self, Announce, AnnouncedPeer, Code, Done, Error, Git, LinkedMachine, MachineName, MessageState, PeerId, Receipt,
        RemotePeer, RepositoryName, Status, Timestamp, UNLINKED,
    },
};
use std::{collections::HashSet, sync::Arc};
use tokio::time::{Instant, sleep_until};

/// How many peers of one machine may be there at once.
const MOST_PEERS: usize = 1_024;
/// How many peers of one machine are remembered, gone ones included.
const MOST_KNOWN: usize = 2 * MOST_PEERS;

impl Broker {
    /// Learns which peers of a machine can be reached now. The others of that machine are gone.
    pub async fn announce(self: &Arc<Self>, Announce { machine, peers }: Announce) -> wire::Result<Done> {
        check_number("peers", peers.len(), MOST_PEERS)?;
        let now = clock::now();
        let row = |AnnouncedPeer { peer, repository }| {
            let mut row = self.row_of(&machine, &peer, now)?;
            if let Some(git) = &mut row.git {
                git.common_dir = repository.as_ref().map_or("", RepositoryName::as_str).to_owned();
            }
            Ok(row)
        };
        let rows = peers.into_iter().map(row).collect::<wire::Result<Vec<_>>>()?;
        let there: HashSet<PeerId> = rows.iter().map(|row| row.id.clone()).collect();
        // Before and after: those that are gone now can be forgotten for those that are new.
        let has_changed = self.hear(&machine, &there, now);
        self.meet(&machine, rows).await?;
        if self.hear(&machine, &there, now) || has_changed {
            self.changes.hint();
        }
        if self.roster().machines.get(&machine).is_some_and(Machine::is_due) {
            self.note_heard(&machine).await?;
        }
        Ok(Done { ok: true })
    }

    /// Notes which peers of `machine` are there. Returns whether that has changed.
    fn hear(self: &Arc<Self>, machine: &MachineName, there: &HashSet<PeerId>, now: Timestamp) -> bool {
        let (mut roster, mut has_changed) = (self.roster(), false);
        let has_come = match roster.machines.get_mut(machine) {
            Some(known) => known.hear(now),
            None => roster.machines.insert(machine.clone(), Machine::new(now)).is_none(),
        };
        if has_come {
            tracing::info!(%machine, "the machine {machine} is there");
            self.expect(machine.clone());
        }
        roster.each_on(machine, |peer| {
            let (before, is_there) = (peer.status(now), there.contains(&peer.row.id));
            peer.heard = is_there.then_some(now);
            if is_there {
                peer.row.last_seen = now;
            }
            has_changed |= peer.status(now) != before;
        });
        has_changed
    }

    /// Tells watchers when `machine` is away. Nothing else would: a machine that vanishes says nothing.
    fn expect(self: &Arc<Self>, machine: MachineName) {
        let broker = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(silent_at) = broker.upgrade().and_then(|broker| broker.check_silence(&machine)) {
                sleep_until(silent_at).await;
            }
            let Some(broker) = broker.upgrade().filter(|broker| !*broker.stopping.borrow()) else { return };
            if let Err(error) = broker.note_heard(&machine).await {
                tracing::debug!(%machine, %error, "noting when {machine} was last heard failed: {error}");
            }
        });
    }

    /// Stores when the peers that `machine` announced last were seen, so that a restarted broker knows since when it is away.
    async fn note_heard(&self, machine: &MachineName) -> wire::Result<()> {
        let (heard, seen) = {
            let mut roster = self.roster();
            let Some(known) = roster.machines.get_mut(machine) else { return Ok(()) };
            known.noted = Some(Instant::now());
            let heard = known.heard;
            let seen = roster.on(machine).filter(|peer| peer.row.last_seen >= heard);
            (heard, seen.map(|peer| peer.row.id.clone()).collect::<Vec<_>>())
        };
        // A power cut may undo it.
        let job = self.store.submit(Durability::Process, move |tx| seen.iter().try_for_each(|id| peers::seen(tx, id, heard)));
        Ok(job.await?.await?)
    }

    /// Ends the presence of a machine that has been silent for too long. Returns when that may be the case next.
    fn check_silence(&self, machine: &MachineName) -> Option<Instant> {
        let mut roster = self.roster();
        let known = roster.machines.get_mut(machine)?;
        if known.silent_at() > Instant::now() {
            return Some(known.silent_at());
        }
        known.is_silent = true;
        tracing::info!(%machine, "the machine {machine} is away: it was last heard {}", known.heard);
        roster.each_on(machine, |peer| peer.heard = None);
        drop(roster);
        self.changes.hint();
        None
    }

    /// Stores the rows of peers of `machine` that are new or have changed, and forgets others if there are too many.
    pub(super) async fn meet(self: &Arc<Self>, machine: &MachineName, rows: Vec<PeerRow>) -> wire::Result<()> {
        let is_same = |old: &PeerRow, row: &PeerRow| PeerRow { last_seen: row.last_seen, ..old.clone() } == *row;
        let (changed, gone, too_many) = {
            let roster = self.roster();
            let known = |row: &PeerRow| roster.peers.get(&row.id).is_some_and(|old| is_same(&old.row, row));
            let changed: Vec<PeerRow> = rows.into_iter().filter(|row| !known(row)).collect();
            if changed.is_empty() {
                return Ok(());
            }
            let (gone, too_many) = room(&roster, machine, &changed);
            (changed, gone, too_many)
        };
        let stored = changed.clone();
        let job = self.commit(Durability::Fsync, move |tx| {
            let forgotten = peers::forget_first(tx, &gone, too_many)?;
            let has_room = forgotten.len() >= too_many;
            if has_room {
                stored.iter().try_for_each(|row| peers::put(tx, row))?;
            }
            Ok((has_room, forgotten))
        });
        let (has_room, forgotten) = job.await?;
        let mut roster = self.roster();
        forgotten.iter().for_each(|id| roster.remove(id));
        if !has_room {
            let what = format!("{MOST_KNOWN} peers of {machine} are remembered, and mail to or from each of them is under way");
            return Err(Error::new(Code::MailboxFull, what).help("wait until some of it is delivered or expires"));
        }
        changed.into_iter().for_each(|row| roster.put(row));
        drop(roster);
        self.changes.hint();
        Ok(())
    }

    /// The row of a peer of another machine: what that machine says of it, and what is kept from before.
    pub(super) fn row_of(&self, machine: &MachineName, peer: &RemotePeer, now: Timestamp) -> wire::Result<PeerRow> {
        let (id, name) = (machine.id_of(&peer.id)?, machine.name_of(&peer.name)?.as_str().to_owned());
        if !peer.cwd.is_empty() {
            check_path("cwd", &peer.cwd)?;
        }
        for (field, words) in [("gitRepo", &peer.git_repo), ("gitBranch", &peer.git_branch)] {
            words.as_ref().map_or(Ok(()), |words| check_words(field, words))?;
        }
        let old = self.roster().peers.get(&id).map(|peer| peer.row.clone());
        let git = peer.git_repo.clone().map(|repo| {
            // No path of this machine: the name of its repository on all machines, which only announcements tell.
            let common_dir = old.as_ref().and_then(|old| old.git.as_ref()).map(|git| git.common_dir.clone()).unwrap_or_default();
            Git { common_dir, head: String::new(), repo, branch: peer.git_branch.clone() }
        });
        let kept = old.unwrap_or_else(|| PeerRow::new(id, name.clone(), peer.cwd.clone(), now));
        // The other machine may allow longer ones.
        let summary = self.limits.cut_summary(&peer.summary);
        let (cwd, machine) = (peer.cwd.clone(), Some(machine.clone()));
        Ok(PeerRow { name, cwd, git, summary, machine, last_seen: now, ..kept })
    }
}

impl Roster {
    /// The other machines that are known, by name.
    pub fn linked(&self, now: Timestamp) -> Vec<LinkedMachine> {
        let linked = |name: &MachineName| LinkedMachine { away_since: self.away_since(name, now), name: name.clone() };
        self.other_machines().into_iter().map(linked).collect()
    }

    /// When `machine` was last heard, if it is away.
    pub fn away_since(&self, machine: &MachineName, now: Timestamp) -> Option<Timestamp> {
        match self.machines.get(machine) {
            Some(known) if known.is_here(now) => None,
            Some(known) => Some(known.heard),
            None => self.on(machine).map(|peer| peer.row.last_seen).max(),
        }
    }

    /// Why a message does not move on: the machine of its recipient is away.
    pub fn stuck(&self, receipt: &Receipt, now: Timestamp) -> Option<String> {
        let machine = self.peers.get(&receipt.to)?.row.machine.as_ref()?;
        let since = self.away_since(machine, now)?;
        let (until, is_linked) = (receipt.expires_at, self.gateway.is_attended());
        let unlinked = if is_linked { String::new() } else { format!(". {UNLINKED}") };
        let place = match receipt.state {
            MessageState::Queued => "the message waits here",
            MessageState::Forwarded => "it is stored on its way there",
            _ => return None,
        };
        Some(format!("{machine} has been away since {since}; {place} until {until}{unlinked}"))
    }
}

/// The peers of a machine that can be forgotten if no mail is under way, the one that is gone the longest first, and how many of them must be
/// so that these rows have room.
fn room(roster: &Roster, machine: &MachineName, rows: &[PeerRow]) -> (Vec<PeerId>, usize) {
    let now = clock::now();
    let known: Vec<&Peer> = roster.on(machine).collect();
    let new = rows.iter().filter(|row| !roster.peers.contains_key(&row.id)).count();
    let too_many = if new == 0 { 0 } else { (known.len() + new).saturating_sub(MOST_KNOWN) };
    let stays: HashSet<&PeerId> = rows.iter().map(|row| &row.id).collect();
    let mut gone: Vec<&Peer> =
        known.into_iter().filter(|peer| peer.status(now) == Status::Gone && !stays.contains(&peer.row.id)).collect();
    gone.sort_by_key(|peer| (peer.row.last_seen, &peer.row.id));
    (gone.into_iter().map(|peer| peer.row.id.clone()).collect(), too_many)
}

/// Refuses a list of more than `most`.
pub(super) fn check_number(what: &str, number: usize, most: usize) -> wire::Result<()> {
    if number <= most {
        return Ok(());
    }
    Err(Error::new(Code::InvalidRequest, format!("{number} {what} at once; at most {most} are taken")))
}
