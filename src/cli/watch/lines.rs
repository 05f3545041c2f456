//! Events as lines: text for people and pipes, or one line of JSON each.

use super::feed::{self, News};
use crate::{
    cli::message::tone,
    client::{Client, with_query},
    console::{Failure, Look, Out, Tone},
    platform::clock,
    wire::{
        HistoryEntry, HistoryPage, MessageId, MessageState, PeerId, PeerRef, Receipt, Result as Answered, Timestamp, WatchEvent,
        text::{first_words, printable_line},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// Most characters of a text in a line.
const SHOWN: usize = 200;
/// How many messages a page of the history has when it is read after the broker was away.
const PAGE: &str = "1000";
/// For how many messages is remembered how they were printed.
const REMEMBERED: usize = 1_000;

/// Which messages to print.
#[derive(Debug, Default)]
pub struct Wanted {
    pub peer: Option<PeerRef>,
    pub state: Option<MessageState>,
    /// The messages of the conversation so far; it grows with its answers.
    pub thread: Option<BTreeSet<MessageId>>,
}

impl Wanted {
    fn picks(&mut self, entry: &HistoryEntry) -> bool {
        let receipt = &entry.receipt;
        if let Some(thread) = &mut self.thread {
            let answers = receipt.reply_to.as_ref().is_some_and(|id| thread.contains(id));
            if answers {
                thread.insert(receipt.message_id.clone());
            }
            if !answers && !thread.contains(&receipt.message_id) {
                return false;
            }
        }
        let parties = [receipt.from.as_str(), &entry.from_name, receipt.to.as_str(), &receipt.to_name];
        self.peer.as_ref().is_none_or(|peer| parties.contains(&peer.as_str()))
            && self.state.is_none_or(|state| state == receipt.state)
    }
}

/// Prints peers and messages as they change, until it is interrupted.
pub async fn run(broker: Rc<Client>, out: Out) -> Result<(), Failure> {
    Printer {
        broker,
        out,
        wanted: Wanted::default(),
        peers: Some(BTreeMap::new()),
        newest: None,
        behind: false,
        printed: BTreeMap::new(),
    }
    .run()
    .await
}

/// Prints the messages of `page`, oldest first, then those that change.
pub async fn follow(broker: Rc<Client>, out: Out, page: HistoryPage, wanted: Wanted) -> Result<(), Failure> {
    let newest = page.messages.first().map_or(0, |entry| entry.receipt.message_id.seq());
    let mut printer = Printer { broker, out, wanted, peers: None, newest: Some(newest), behind: false, printed: BTreeMap::new() };
    page.messages.into_iter().rev().try_for_each(|entry| printer.message(entry))?;
    printer.run().await
}

struct Printer {
    broker: Rc<Client>,
    out: Out,
    wanted: Wanted,
    /// The names of the peers that were shown; none if only messages are.
    peers: Option<BTreeMap<PeerId, String>>,
    /// The place of the newest message that was printed, once it is known.
    newest: Option<i64>,
    /// Messages after the newest one may be missing.
    behind: bool,
    /// The last messages that were printed, and as of when.
    printed: BTreeMap<i64, (MessageState, Timestamp)>,
}

impl Printer {
    async fn run(mut self) -> Result<(), Failure> {
        let mut feed = feed::open(self.broker.clone()).await?;
        let mut before: BTreeMap<PeerId, String> = BTreeMap::new();
        while let Some(news) = feed.recv().await {
            match news {
                News::Open => before = self.peers.as_mut().map(std::mem::take).unwrap_or_default(),
                News::Event(event) if *event == WatchEvent::Ready => {
                    // Only who left while the broker was away.
                    for (id, name) in std::mem::take(&mut before) {
                        if self.peers.as_ref().is_some_and(|peers| !peers.contains_key(&id)) {
                            self.left(&id, &name)?;
                        }
                    }
                    self.catch_up().await?;
                }
                News::Event(event) => self.event(*event, &before)?,
                News::Away(error) => self.out.aside(&format!("{error}; waiting for it …")),
                News::Failed(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: WatchEvent, before: &BTreeMap<PeerId, String>) -> Result<(), Failure> {
        match &event {
            WatchEvent::Message(entry) => self.message(entry.clone()),
            WatchEvent::Peer(peer) => {
                let Some(peers) = &mut self.peers else { return Ok(()) };
                let is_new = peers.insert(peer.id.clone(), peer.name.clone()).is_none() && !before.contains_key(&peer.id);
                // Text tells who comes and goes; JSON tells every change.
                if is_new || self.out.json { self.print(&event) } else { Ok(()) }
            }
            WatchEvent::Left(id) => {
                let name = self.peers.as_mut().and_then(|peers| peers.remove(id));
                name.map_or(Ok(()), |name| self.left(id, &name))
            }
            WatchEvent::Missed(_) => self.print(&event),
            WatchEvent::Ready => Ok(()),
        }
    }

    /// Prints a message that is wanted, unless it has been printed as it is.
    fn message(&mut self, entry: HistoryEntry) -> Result<(), Failure> {
        let receipt = &entry.receipt;
        let (seq, as_it_is) = (receipt.message_id.seq(), (receipt.state, changed_at(receipt)));
        if !self.behind {
            self.newest = self.newest.max(Some(seq));
        }
        if !self.wanted.picks(&entry) || self.printed.insert(seq, as_it_is) == Some(as_it_is) {
            return Ok(());
        }
        if self.printed.len() > REMEMBERED {
            self.printed.pop_first();
        }
        self.print(&WatchEvent::Message(entry))
    }

    /// Prints the messages that were accepted while nobody listened.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        self.behind = true;
        match self.missed().await {
            Ok(missed) => {
                self.behind = false;
                missed.into_iter().rev().try_for_each(|entry| self.message(entry))
            }
            Err(error) if feed::mends_itself(&error) => Ok(()), // the stream has ended, too, and opens again
            Err(error) => Err(error.into()),
        }
    }

    /// The messages after the newest that was printed, newest first.
    async fn missed(&mut self) -> Answered<Vec<HistoryEntry>> {
        let (mut missed, mut before) = (Vec::new(), None::<MessageId>);
        loop {
            let before_text = before.as_ref().map(ToString::to_string);
            let mut query = vec![("limit", if self.newest.is_some() { PAGE } else { "1" })];
            query.extend(before_text.as_deref().map(|id| ("before", id)));
            let page: HistoryPage = self.broker.get(&with_query("/v1/history", &query), None).await?;
            let Some(newest) = self.newest else {
                self.newest = Some(page.messages.first().map_or(0, |entry| entry.receipt.message_id.seq()));
                return Ok(missed);
            };
            let found = page.messages.len();
            missed.extend(page.messages.into_iter().filter(|entry| entry.receipt.message_id.seq() > newest));
            before = page.next.filter(|next| next.seq() > newest);
            if before.is_none() || found == 0 {
                return Ok(missed);
            }
        }
    }

    fn left(&self, id: &PeerId, name: &str) -> Result<(), Failure> {
        if self.out.json {
            return self.print(&WatchEvent::Left(id.clone()));
        }
        self.out.human(|look| format!("{}  {} left\n", time(clock::now(), look), printable_line(name)))
    }

    fn print(&self, event: &WatchEvent) -> Result<(), Failure> {
        self.out.answer(event, line)
    }
}

fn line(event: &WatchEvent, look: Look) -> String {
    let now = clock::now();
    match event {
        WatchEvent::Peer(peer) => {
            let (name, cwd) = (printable_line(&peer.name), printable_line(&peer.cwd));
            format!("{}  {} joined in {cwd}\n", time(now, look), look.paint(Tone::Strong, name))
        }
        WatchEvent::Message(entry) => {
            let Receipt { message_id, to_name, state, .. } = &entry.receipt;
            let (from, to) = (printable_line(&entry.from_name), printable_line(to_name));
            let state = look.paint(tone(*state), state.as_str());
            let at = time(changed_at(&entry.receipt), look);
            format!("{at}  {message_id}  {from} → {to}  {state}  {}\n", first_words(&entry.text, SHOWN))
        }
        WatchEvent::Missed(count) => {
            format!("{}  {count} changes of messages came too fast and are left out\n", time(now, look))
        }
        WatchEvent::Left(_) | WatchEvent::Ready => String::new(),
    }
}

fn time(at: Timestamp, look: Look) -> String {
    look.paint(Tone::Dim, look.time(at))
}

/// When the message came into the state that it is in.
pub fn changed_at(receipt: &Receipt) -> Timestamp {
    let held = receipt.held.as_ref().map(|held| held.at);
    let times = [receipt.offered_at, held, receipt.delivered_at, receipt.expired_at];
    times.into_iter().flatten().fold(receipt.sent_at, Timestamp::max)
}
