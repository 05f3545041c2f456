//! The tables as a value: a state of the model contains their rows. Each operation loads the rows into a real database, runs the
//! mailbox's own code there, and reads the rows back.

use super::operation::{Answer, Operation, RECIPIENT};
use crate::{
    db::{
        Row, Tx,
        sqlite::{self, types::ValueRef},
        testing,
    },
    mailbox::{InboxNews, MessageChange, Transaction},
    wire::{MessageState, PeerId},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// How many results are remembered.
const REMEMBERED: usize = 400_000;

/// A value in a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cell {
    Null,
    Number(i64),
    Text(String),
}

/// The rows of both tables, with their hash.
#[derive(PartialEq, Eq)]
pub struct Tables {
    peers: Vec<Vec<Cell>>,
    messages: Vec<Vec<Cell>>,
    hash: u64,
    /// The messages to [`RECIPIENT`], read from the rows.
    pub mail: Vec<Stored>,
    /// The agent process whose inbox or channel has proved itself.
    pub proved: Option<String>,
    /// The messages from the broker: the senders and the questions they name.
    pub notices: Vec<(String, String)>,
}

/// A message to the recipient, as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub seq: i64,
    /// 0 queued, 1 offered, 2 delivered, 3 expired.
    pub state: i64,
    pub waiting: bool,
    pub held: bool,
    /// The process that holds it, and its lease; the stream has none.
    pub holder: Option<(String, Option<String>)>,
    /// How often it may have been shown.
    pub handed: i64,
    pub is_offered: bool,
    /// Only its beginning was shown.
    pub is_announced: bool,
    /// Whether [`SOUND`] is true of it.
    is_sound: bool,
}

/// A row that does not contradict itself.
const SOUND: &str = "(holder = 0) = (instance IS NULL) AND (holder = 2) = (lease IS NOT NULL)
    AND (holder = 0 OR waiting = 1 AND state < 2 AND held_at IS NULL) AND (held_at IS NULL OR state <> 2 AND held_by > 0)
    AND (state > 0 OR waiting = 1 AND route IS NULL) AND (state < 2 OR waiting = 0) AND (state NOT IN (1, 2) OR route IS NOT NULL) AND (state <> 2 OR route <> 'channel')
    AND (state <> 1 OR offered_at IS NOT NULL) AND (state = 2) = (delivered_at IS NOT NULL)
    AND (state <> 3 OR expired_at IS NOT NULL) AND (state > 1 OR expired_at IS NULL) AND handed >= 0";

/// What became of an operation.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub tables: Arc<Tables>,
    pub answer: Answer,
    /// Whether the recipient must look again, and whether it is told that messages wait.
    pub wake: Option<bool>,
    pub news: Vec<InboxNews>,
    /// What the operation must not do.
    pub wrong: Option<String>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mail.fmt(f)
    }
}

impl Hash for Tables {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl Tables {
    /// Tables without a row.
    pub fn empty() -> Arc<Self> {
        DATABASE.with(|tx| Arc::new(Self::read(tx)))
    }

    /// Runs `operation` on these rows.
    pub fn run(&self, operation: &Operation) -> Outcome {
        let key = (self.hash, operation.clone());
        if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).cloned()) {
            return known;
        }
        let outcome = DATABASE.with(|tx| self.run_on(tx, operation));
        KNOWN.with_borrow_mut(|known| {
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(key, outcome.clone());
        });
        outcome
    }

    fn run_on(&self, tx: &Tx<'_>, operation: &Operation) -> Outcome {
        tx.run("BEGIN", []).unwrap();
        self.peers.iter().for_each(|row| insert(tx, "peer", row));
        self.messages.iter().for_each(|row| insert(tx, "message", row));
        let twins: Vec<_> =
            if *operation == Operation::Expire { Vec::new() } else { self.messages.iter().map(|row| twin(row)).collect() };
        twins.iter().for_each(|row| insert(tx, "message", row));
        let mut transaction = Transaction::new(tx, operation.time());
        let answer = operation.run(&mut transaction);
        let mut effects = transaction.effects;
        let recipient: PeerId = RECIPIENT.parse().unwrap();
        let wake = effects.wake.remove(&recipient);
        let news = effects.inbox.into_iter().filter(|(peer, _)| *peer == recipient).map(|(_, news)| news).collect();
        let tables = Arc::new(Self::read(tx));
        let is_alone = tx.all("SELECT * FROM message WHERE seq < 0 ORDER BY seq DESC", [], cells).unwrap() == twins;
        tx.run("ROLLBACK", []).unwrap();
        let wrong = match () {
            () if !is_alone => Some(format!("{operation:?} changes the mailbox of another peer")),
            () if (tables.proved == self.proved) == effects.proofs.iter().any(|(peer, ..)| *peer == recipient) => {
                Some(format!("{operation:?}: a proof is not told"))
            }
            () if effects.proofs.iter().any(|(peer, ..)| *peer != recipient) => {
                Some(format!("{operation:?} proves an inbox or channel of another peer"))
            }
            () if let Some(seq) = self.unsound(&tables) => Some(format!("{operation:?}: the row of message {seq} is wrong")),
            () if self.frees(&tables) && wake.is_none() && *operation != Operation::Leave => {
                Some(format!("{operation:?} frees messages, and nobody looks again"))
            }
            () if matches!(operation, Operation::Move { .. } | Operation::All(_)) => None, // a move changes no state
            () => self.mistold(&tables, &effects.changes, matches!(operation, Operation::Expire | Operation::Poll)),
        };
        Outcome { tables, answer, wake, news, wrong }
    }

    /// What the watchers are told wrongly: of messages that change together, a later one first; of a message that has not changed; or of a
    /// new state nothing.
    fn mistold(&self, new: &Self, changes: &[MessageChange], together: bool) -> Option<String> {
        if together && !changes.is_sorted_by_key(|change| change.id.seq()) {
            return Some(format!("changes are told in the wrong order: {changes:?}"));
        }
        let is_in = |tables: &Self, seq, state| tables.mail.iter().any(|stored| stored.seq == seq && stored.state == state);
        let row = |tables: &Self, seq| tables.messages.iter().find(|row| row[0] == Cell::Number(seq)).cloned();
        let is_idle = |seq| row(self, seq) == row(new, seq);
        if let Some(seq) = changes.iter().map(|change| change.id.seq()).filter(|seq| *seq > 0).find(|seq| is_idle(*seq)) {
            return Some(format!("a change of message {seq} is told, and it has not changed"));
        }
        let is_told =
            |stored: &Stored| changes.iter().any(|change| change.id.seq() == stored.seq && is_state(change.state, stored));
        let has_ended = |seq| is_in(self, seq, 2) || is_in(self, seq, 3) && !is_in(new, seq, 2);
        if let Some(seq) = new.mail.iter().map(|stored| stored.seq).find(|seq| has_ended(*seq) && !is_idle(*seq)) {
            return Some(format!("message {seq} has ended, and changes"));
        }
        let was = |stored: &Stored| self.mail.iter().find(|old| old.seq == stored.seq).map(|old| old.state);
        let untold = new.mail.iter().find(|stored| was(stored) != Some(stored.state) && !is_told(stored))?;
        Some(format!("nobody is told of the state of message {}", untold.seq))
    }

    /// Whether some message can be taken that could not before.
    fn frees(&self, new: &Self) -> bool {
        let is_free = |stored: &&Stored| stored.waiting && !stored.held && stored.holder.is_none();
        let free: Vec<i64> = self.mail.iter().filter(is_free).map(|stored| stored.seq).collect();
        new.mail.iter().filter(is_free).any(|stored| !free.contains(&stored.seq))
    }

    /// A row that contradicts itself, or a message that is held although it was shown.
    fn unsound(&self, new: &Self) -> Option<i64> {
        let was_shown = |seq| self.mail.iter().any(|old| old.seq == seq && old.state > 0 && !old.held);
        new.mail.iter().find(|stored| !stored.is_sound || stored.held && was_shown(stored.seq)).map(|stored| stored.seq)
    }

    fn read(tx: &Tx<'_>) -> Self {
        let peers = tx.all("SELECT * FROM peer ORDER BY id", [], cells).unwrap();
        let messages = tx.all("SELECT * FROM message WHERE seq > 0 ORDER BY seq", [], cells).unwrap();
        let sql =
            "SELECT seq, state, waiting, held_at IS NOT NULL, holder, instance, lease, handed, offered_at IS NOT NULL, again = 2";
        let mail = format!("{sql}, {SOUND} FROM message WHERE to_peer = ?1 AND seq > 0 ORDER BY seq");
        let mail = tx.all(&mail, [RECIPIENT], Stored::read).unwrap();
        let sql = "SELECT to_peer, reply_to FROM message WHERE from_peer = 'broker' AND seq > 0";
        let notices = tx.all(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let proved = tx.one("SELECT proved_by FROM peer WHERE id = ?1", [RECIPIENT], |row| row.get(0)).unwrap().flatten();
        let mut hasher = DefaultHasher::new();
        (&peers, &messages).hash(&mut hasher);
        Self { peers, messages, hash: hasher.finish(), mail, proved, notices }
    }
}

impl Stored {
    fn read(row: &Row<'_>) -> sqlite::Result<Self> {
        let instance: Option<String> = row.get(5)?;
        let is_held_by = row.get::<_, i64>(4)? > 0;
        let holder =
            instance.filter(|_| is_held_by).map(|instance| Ok::<_, sqlite::Error>((instance, row.get(6)?))).transpose()?;
        let (handed, is_offered, is_announced, is_sound) = (row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?);
        Ok(Self {
            seq: row.get(0)?,
            state: row.get(1)?,
            waiting: row.get(2)?,
            held: row.get(3)?,
            holder,
            handed,
            is_offered,
            is_announced,
            is_sound,
        })
    }
}

thread_local! {
    static DATABASE: Tx<'static> = testing::tx(Box::leak(Box::new(testing::memory())));
    static KNOWN: RefCell<HashMap<(u64, Operation), Outcome>> = RefCell::default();
}

fn cells(row: &Row<'_>) -> sqlite::Result<Vec<Cell>> {
    let cell = |column| {
        Ok(match row.get_ref(column)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Number(number),
            ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
            other => panic!("the model has no {other:?}"),
        })
    };
    (0..row.as_ref().column_count()).map(cell).collect()
}

/// The same message in the mailbox of another peer, which no operation may touch.
fn twin(row: &[Cell]) -> Vec<Cell> {
    let Cell::Number(seq) = row[0] else { panic!("a message without a place") };
    let mut twin = row.to_vec();
    (twin[0], twin[3], twin[6]) = (Cell::Number(-seq), Cell::Text("twin".to_owned()), Cell::Null);
    twin
}

/// Whether `told` is the state of this message. A late acknowledgement may reach a message that is held.
fn is_state(told: MessageState, stored: &Stored) -> bool {
    match told {
        MessageState::Queued => stored.state == 0,
        MessageState::Held => stored.held && stored.state < 2,
        MessageState::Forwarded => false, // nothing in the model goes to other machines
        MessageState::Offered => stored.state == 1,
        MessageState::Delivered => stored.state == 2,
        MessageState::Expired => stored.state == 3,
    }
}

fn insert(tx: &Tx<'_>, table: &str, row: &[Cell]) {
    let places = vec!["?"; row.len()].join(", ");
    tx.run(&format!("INSERT INTO {table} VALUES ({places})"), sqlite::params_from_iter(row)).unwrap();
}

impl sqlite::ToSql for Cell {
    fn to_sql(&self) -> sqlite::Result<sqlite::types::ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => sqlite::types::Null.to_sql()?,
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.to_sql()?,
        })
    }
}
