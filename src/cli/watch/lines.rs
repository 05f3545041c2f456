//! Events as lines: text for people and pipes, or one line of JSON each.

use super::feed::{self, News};
use crate::{
    cli::{peers, rows::tone},
    client::{Client, with_query},
    console::{Failure, Look, Out, Tone},
    platform::clock,
    wire::{
        Code, HistoryEntry, HistoryPage, MessageId, MessageState, PeerId, PeerRef, Receipt, Result as Answered, Timestamp,
        WatchEvent,
        text::{first_words, printable_line},
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

/// Most characters of a text in a line.
const SHOWN: usize = 200;
/// How many messages a page of the history has when it is read after the broker was away.
const PAGE: u32 = 1_000;
/// The pause before the broker is asked again.
const PAUSE: Duration = Duration::from_millis(200);
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
    let newest = newest(&broker).await?;
    Printer { broker, out, wanted: Wanted::default(), peers: Some(BTreeMap::new()), newest, printed: BTreeMap::new() }.run().await
}

/// The newest message that there is.
pub async fn newest(broker: &Client) -> Answered<Option<MessageId>> {
    let page: HistoryPage = broker.get("/v1/history?limit=1", None).await?;
    Ok(page.messages.into_iter().next().map(|entry| entry.receipt.message_id))
}

/// Prints the messages of `page`, oldest first, then those that change. `newest` was the newest of all before the page was read.
pub async fn follow(
    broker: Rc<Client>,
    out: Out,
    page: HistoryPage,
    newest: Option<MessageId>,
    wanted: Wanted,
) -> Result<(), Failure> {
    let mut printer = Printer { broker, out, wanted, peers: None, newest, printed: BTreeMap::new() };
    page.messages.into_iter().rev().try_for_each(|entry| printer.message(entry))?;
    printer.run().await
}

struct Printer {
    broker: Rc<Client>,
    out: Out,
    wanted: Wanted,
    /// The names of the peers that were shown; none if only messages are.
    peers: Option<BTreeMap<PeerId, String>>,
    /// The newest message that was heard of.
    newest: Option<MessageId>,
    /// The last messages that were printed, and as of when.
    printed: BTreeMap<i64, (MessageId, MessageState, Timestamp)>,
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
        let id = receipt.message_id.clone();
        if self.newest.as_ref().is_none_or(|newest| newest.seq() < id.seq()) {
            self.newest = Some(id.clone());
        }
        let (seq, as_it_is) = (id.seq(), (id, receipt.state, changed_at(receipt)));
        if !self.wanted.picks(&entry) || self.printed.get(&seq) == Some(&as_it_is) {
            return Ok(());
        }
        self.printed.insert(seq, as_it_is);
        if self.printed.len() > REMEMBERED {
            self.printed.pop_first();
        }
        self.print(&WatchEvent::Message(entry))
    }

    /// Prints what has happened while nobody listened: new messages, and changes of those that were printed. Meanwhile the stream waits.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        let mut after = self.newest.as_ref().map_or_else(|| "0".to_owned(), ToString::to_string);
        loop {
            let path = with_query("/v1/history", &json!({ "limit": PAGE, "after": after }));
            let page: HistoryPage = self.read(&path).await?;
            page.messages.into_iter().try_for_each(|entry| self.message(entry))?;
            match page.next {
                Some(next) => after = next.to_string(),
                None => break,
            }
        }
        let is_open = |state: &MessageState| !matches!(state, MessageState::Delivered | MessageState::Expired);
        let open: Vec<MessageId> =
            self.printed.values().filter(|(_, state, _)| is_open(state)).map(|(id, ..)| id.clone()).collect();
        for id in open {
            match self.read(&format!("/v1/messages/{id}")).await {
                Ok(entry) => self.message(entry)?,
                Err(error) if error.code == Code::MessageNotFound => {} // removed from the history
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Asks the broker, again and again while it is away.
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Answered<T> {
        loop {
            match self.broker.get(path, None).await {
                Err(error) if feed::mends_itself(&error) => tokio::time::sleep(PAUSE).await,
                answer => return answer,
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
            let cwd = peers::directory(peer, str::to_owned);
            let (name, cwd) = (printable_line(&peer.name), printable_line(&cwd));
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
