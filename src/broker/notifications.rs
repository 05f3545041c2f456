//! When the user is needed: a session waits for them, an answer to them is not read, or a message that they sent has expired.
//!
//! Each notification comes once, after a moment in which its reason may go away, and is withdrawn when the reason goes away later. While
//! nothing changes, this module does nothing.

use super::{activities::Activities, changes::Changed, core::Broker};
use crate::{
    mailbox::{MessageChange, history},
    platform::clock,
    wire::{CLI_SENDER, Doing, MessageId, MessageState, PeerId, Status, text::first_words},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How long something may be settled before the person is called.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after each batch of changes.
const PACE: Duration = Duration::from_millis(50);
/// Most characters of a text that are shown.
const SHOWN: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// This session waits for the person.
    Session(PeerId),
    /// This message is an answer to the person.
    Answer(MessageId),
    /// This message of the person has expired.
    Expired(MessageId),
}

/// A change of what is to be shown.
#[derive(Debug)]
pub enum Notification {
    Show { subject: Subject, title: String, text: String },
    Withdraw(Subject),
}

/// Follows when the person is needed.
#[derive(Debug)]
pub struct Notifications {
    broker: Arc<Broker>,
    changed: Changed,
    activities: Activities,
    /// The status files that were looked at last, with their sessions.
    files: BTreeMap<String, (PeerId, String)>,
    /// A file may have changed since.
    is_outdated: bool,
    /// Not shown yet, with the time to do so.
    pending: BTreeMap<Subject, Instant>,
    shown: BTreeSet<Subject>,
    queue: VecDeque<Notification>,
}

impl Broker {
    /// Follows from now on when the person is needed.
    pub fn notifications(self: &Arc<Self>) -> Notifications {
        Notifications {
            broker: self.clone(),
            changed: self.changes.subscribe(),
            activities: Activities::of(self),
            files: BTreeMap::new(),
            is_outdated: false,
            pending: BTreeMap::new(),
            shown: BTreeSet::new(),
            queue: VecDeque::new(),
        }
    }
}

impl Notifications {
    /// The next change, until the broker stops. Not cancel-safe.
    pub async fn next(&mut self) -> Option<Notification> {
        loop {
            self.look().await;
            self.call();
            if let Some(next) = self.queue.pop_front() {
                return Some(next);
            }
            let due = self.pending.values().min().copied();
            tokio::select! {
                biased;
                () = self.broker.stopped() => return None,
                () = self.activities.changed() => self.is_outdated = true,
                batch = self.changed.next() => {
                    batch.messages.iter().for_each(|change| self.heed(change));
                    if batch.missed > 0 {
                        self.check();
                    }
                    sleep(PACE).await;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn heed(&mut self, change: &MessageChange) {
        let (id, due) = (change.id.clone(), Instant::now() + PATIENCE);
        if change.to.as_str() == CLI_SENDER {
            let answer = Subject::Answer(id);
            match change.state {
                MessageState::Queued => _ = self.pending.insert(answer, due),
                _ => self.settle(&answer),
            }
        } else if change.from.as_str() == CLI_SENDER && change.state == MessageState::Expired {
            self.pending.insert(Subject::Expired(id), Instant::now());
        }
    }

    /// Settles the answers that were read while changes were missed.
    fn check(&mut self) {
        let settled = |subject: &&Subject| matches!(subject, Subject::Answer(_)) && self.words(subject).is_none();
        let settled: Vec<Subject> = self.shown.iter().filter(settled).cloned().collect();
        settled.iter().for_each(|subject| self.settle(subject));
    }

    fn settle(&mut self, subject: &Subject) {
        self.pending.remove(subject);
        if self.shown.remove(subject) {
            self.queue.push_back(Notification::Withdraw(subject.clone()));
        }
    }

    /// Looks at what sessions do, if one has come or gone, or a file has changed.
    async fn look(&mut self) {
        let files = self.files_of_sessions();
        if !std::mem::take(&mut self.is_outdated) && files == self.files {
            return;
        }
        let activities = self.broker.probes.activities.ask_all(files.keys().cloned()).await;
        let needy = |file: &String| matches!(activities.get(file), Some(Some(activity)) if activity.doing == Doing::NeedsYou);
        let waiting: BTreeSet<Subject> =
            files.iter().filter(|(file, _)| needy(file)).map(|(_, (id, _))| Subject::Session(id.clone())).collect();
        let known = self.pending.keys().chain(&self.shown).filter(|subject| matches!(subject, Subject::Session(_)));
        let settled: Vec<Subject> = known.filter(|subject| !waiting.contains(subject)).cloned().collect();
        settled.iter().for_each(|subject| self.settle(subject));
        for subject in waiting.into_iter().filter(|subject| !self.shown.contains(subject)) {
            self.pending.entry(subject).or_insert_with(|| Instant::now() + PATIENCE);
        }
        self.files = files;
        self.activities.looked();
    }

    fn files_of_sessions(&self) -> BTreeMap<String, (PeerId, String)> {
        let (now, roster) = (clock::now(), self.broker.roster());
        let live = roster.peers.values().filter(|peer| peer.status(now) == Status::Connected);
        live.filter_map(|peer| Some((peer.status_file.clone()?, (peer.row.id.clone(), peer.row.name.clone())))).collect()
    }

    /// Shows what is due and not settled.
    fn call(&mut self) {
        let now = Instant::now();
        let due: Vec<Subject> = self.pending.iter().filter(|(_, at)| **at <= now).map(|(subject, _)| subject.clone()).collect();
        for subject in due {
            self.pending.remove(&subject);
            if let Some((title, text)) = self.words(&subject) {
                // An expired message can never be settled.
                if !matches!(subject, Subject::Expired(_)) {
                    self.shown.insert(subject.clone());
                }
                self.queue.push_back(Notification::Show { subject, title, text });
            }
        }
    }

    /// The title and text of a notification; none if it is settled.
    fn words(&self, subject: &Subject) -> Option<(String, String)> {
        let message = |id: &MessageId| {
            let found = self.broker.store.glance(|view| history::get(view, id));
            let found = found.inspect_err(|error| tracing::warn!(%error, "reading a message for a notification failed: {error}"));
            Some(self.broker.entry(found.ok()??))
        };
        Some(match subject {
            Subject::Session(id) => {
                let (file, (_, name)) = self.files.iter().find(|(_, (peer, _))| peer == id)?;
                let activity = self.broker.probes.activities.known(file)??;
                (format!("{name} needs you"), activity.needs.unwrap_or_else(|| "It waits for your answer.".to_owned()))
            }
            Subject::Answer(id) => {
                let entry = message(id).filter(|entry| entry.receipt.state == MessageState::Queued)?;
                (format!("{} has answered", entry.from_name), first_words(&entry.text, SHOWN))
            }
            Subject::Expired(id) => {
                let entry = message(id)?;
                (format!("No proof that {} saw your message", entry.receipt.to_name), first_words(&entry.text, SHOWN))
            }
        })
    }
}
