//! A state of the model: the real tables, the broker's memory, the processes of the recipient's session, and for each message what
//! its session has seen of it.

use super::{
    operation::{Answer, BYPASSING, CONTAINED, Draft, Facts, Given, LASTING, Operation, RECIPIENT, Taking},
    tables::{Outcome, Tables},
};
use crate::{
    mailbox::InboxNews,
    wire::{InboundRule, MessageId, Outcome as Became, Route},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

/// After this many lost frames in a row the inbox is given up.
const MOST_MISSES: u8 = 3;

/// How messages get into the recipient's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    Channel,
    /// An inbox whose prompt hook proves each message.
    Hooked,
    /// An inbox without a hook.
    Bare,
    /// Only its calls.
    None,
    /// A legacy client, which polls.
    Legacy,
}

/// A message that will be sent to the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Letter {
    pub from: &'static str,
    /// Too long for any route but `check_messages`.
    pub is_long: bool,
    /// It names a question that its sender was asked: by the recipient, or by another peer if [`BYPASSING`] sends it.
    pub answers: bool,
}

/// What may happen in a run, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Setup {
    pub door: Door,
    pub letters: Vec<Letter>,
    pub servers: usize,
    pub agents: u32,
    pub faults: u8,
    pub cancels: u8,
    pub controls: u8,
    pub replies: u8,
    pub expires: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub setup: Arc<Setup>,
    pub tables: Arc<Tables>,
    pub broker: Memory,
    pub servers: Vec<Server>,
    pub agent: Agent,
    /// The server and the agent process that registered last.
    pub registered: Option<(usize, u32)>,
    pub inbound: InboundRule,
    pub bypasses: bool,
    pub fates: BTreeMap<i64, Fate>,
    pub spent: Spent,
    /// The first promise that was broken.
    pub broken: Option<String>,
}

/// How often things have happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub letters: usize,
    pub faults: u8,
    pub cancels: u8,
    pub controls: u8,
    pub replies: u8,
    pub expired: bool,
}

/// What the broker has in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    pub stream: Option<Stream>,
    /// Takes that wait in the broker.
    pub takes: Vec<Parked>,
    pub hint: bool,
    /// Messages written into the inbox but not let in; not known after a restart.
    pub pending: Option<Vec<i64>>,
    pub let_in: Vec<i64>,
    /// How many frames in a row were lost; after some the inbox is given up.
    pub misses: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stream {
    pub server: usize,
    pub after: i64,
    pub buffer: Vec<Given>,
    pub awake: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parked {
    pub server: usize,
    pub lease: String,
    pub route: Taking,
    pub awake: bool,
    pub is_outdated: bool,
    /// Nobody reads its answer.
    pub is_cut: bool,
}

/// An MCP server of the session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Server {
    pub is_gone: bool,
    /// It serves the session, over a connection.
    pub is_up: bool,
    /// It knows that mail may wait.
    pub mail_waits: bool,
    pub pushed: BTreeSet<i64>,
    pub acknowledgements: Vec<Acknowledging>,
    pub call: Call,
    pub door: Call,
    /// Takes whose answer never arrived: their messages go back.
    pub returns: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acknowledging {
    pub route: Route,
    pub seq: i64,
    pub outcome: Became,
    pub lease: Option<String>,
    /// The broker's answer is on its way.
    pub is_sent: bool,
}

/// A take, as its server sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    pub stage: Stage,
    pub route: Taking,
    pub lease: String,
    pub waits: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stage {
    Idle,
    Asking,
    /// The broker's answer is on its way; more messages may wait.
    Answered(Vec<Given>, bool),
    Holding(Vec<Given>),
}

impl Default for Call {
    fn default() -> Self {
        Self { stage: Stage::Idle, route: Taking::Check, lease: String::new(), waits: false }
    }
}

/// The agent process that runs the session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Agent {
    pub number: u32,
    pub is_gone: bool,
    /// Its inbox or channel works.
    pub is_live: bool,
    /// What was pushed and not yet shown: whether whole.
    pub queue: Vec<(Given, bool)>,
    /// What its hook has yet to report.
    pub reports: Vec<i64>,
    /// What it holds for its user.
    pub asked: Vec<Given>,
    pub polled: Option<Vec<Given>>,
}

/// What the session has seen of a message, and what may happen to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fate {
    pub letter: Letter,
    pub is_shown: bool,
    pub is_begun: bool,
    /// How often it was shown without a mark: whole, and its beginning.
    pub unmarked: (u8, u8),
    /// It may have been shown.
    pub is_exposed: bool,
    /// The agent process that it was pushed into.
    pub pushed: Option<u32>,
    /// The agent process whose inbox or channel has shown it, if nothing else has.
    pub shown_by_push: Option<u32>,
    /// A fault may have lost it.
    pub is_uncertain: bool,
    pub is_confirmed: bool,
    pub was_held: bool,
    pub is_free: bool,
    pub has_expired: bool,
    /// The agent process whose user was asked whether to let it in, and has not.
    pub asked: Option<u32>,
}

/// The part of a server that takes messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    Call,
    Door,
    Return,
}

pub fn instance(server: usize) -> String {
    format!("s{server}")
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.setup) // the steps make the rest of it
    }
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let agent = Agent::new(0, true);
        let mut world = Self {
            setup: Arc::new(setup),
            tables: Tables::empty(),
            broker: Memory::default(),
            servers: vec![Server::default()],
            agent: Agent { is_gone: true, ..agent },
            registered: None,
            inbound: InboundRule::Match,
            bypasses: false,
            fates: BTreeMap::new(),
            spent: Spent::default(),
            broken: None,
        };
        ["a", LASTING, BYPASSING, CONTAINED].into_iter().for_each(|peer| drop(world.run(&Operation::Meet(peer.to_owned()))));
        world.agent.is_gone = false;
        world.register(0);
        // The stream of `a` pushes it: to name it again proves no channel of its sender.
        let question = Draft { stream: Some(String::new()), ..Draft::new(RECIPIENT, "a", "question") };
        world.run(&Operation::Send(question));
        world.run(&Operation::Send(Draft::new(LASTING, BYPASSING, "question")));
        world
    }

    /// Runs an operation, and applies its effects to the broker's memory as `Broker::apply` does.
    pub fn run(&mut self, operation: &Operation) -> Answer {
        let Outcome { tables, answer, wake, news, wrong } = self.tables.run(operation);
        wrong.into_iter().for_each(|wrong| self.break_promise(wrong));
        self.tables = tables;
        news.into_iter().for_each(|news| self.hear_news(news));
        if let Some(hints) = wake {
            self.broker.hint |= hints;
            self.wake();
        }
        answer
    }

    /// Runs a take or a look, which answers with messages.
    pub fn mail(&mut self, operation: &Operation) -> Vec<Given> {
        match self.run(operation) {
            Answer::Mail(mail) => mail,
            other => panic!("{operation:?}: {other:?}"),
        }
    }

    pub fn is_true(&self, operation: &Operation) -> bool {
        self.tables.run(operation).answer == Answer::Yes(true)
    }

    pub fn wake(&mut self) {
        self.broker.stream.iter_mut().for_each(|stream| stream.awake = true);
        self.broker.takes.iter_mut().for_each(|take| take.awake = true);
    }

    fn hear_news(&mut self, news: InboxNews) {
        let Memory { pending, let_in, misses, .. } = &mut self.broker;
        let Some(pending) = pending else { return };
        match news {
            InboxNews::Written(ids) => {
                pending.extend(ids.iter().map(MessageId::seq).filter(|seq| !let_in.contains(seq)));
            }
            InboxNews::LetIn(id) => {
                pending.retain(|seq| *seq != id.seq());
                let_in.push(id.seq());
                *misses = 0;
            }
            InboxNews::Missed(messages) => {
                pending.clear();
                *misses += u8::from(messages > 0);
            }
            InboxNews::Prompted => {}
        }
    }

    pub fn break_promise(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert(what.into());
    }

    pub fn serving(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.is_up)
    }

    pub fn has_inbox(&self) -> bool {
        matches!(self.setup.door, Door::Hooked | Door::Bare)
    }

    /// Whether the broker pushes into the session: a recipient that holds everything gets nothing by itself.
    pub fn pushes_by(&self, route: Taking) -> bool {
        let holds_nothing = !matches!(self.inbound, InboundRule::Hold | InboundRule::Refuse);
        match route {
            Taking::Stream => self.setup.door == Door::Channel && holds_nothing,
            _ => self.has_inbox() && holds_nothing && self.broker.misses < MOST_MISSES,
        }
    }

    /// How many calls of the serving process wait for a message.
    pub fn waiting_calls(&self) -> usize {
        let serving = self.registered.map(|(server, _)| server);
        self.broker.takes.iter().filter(|take| take.route != Taking::Inbox && Some(take.server) == serving).count()
    }

    /// Registers `server` and opens its stream.
    pub fn register(&mut self, server: usize) {
        let (before, agent) = (self.registered, self.agent.number);
        let gone = before.filter(|(_, other)| *other != agent).map(|(_, other)| other);
        self.note_ended_leases(Some(server), gone);
        if before.is_some_and(|(other, _)| other != server) {
            self.servers.iter_mut().for_each(|server| server.is_up = false);
            self.broker.stream = None;
            self.wake();
        }
        if gone.is_some() {
            (self.broker.pending, self.broker.let_in, self.broker.misses) = (None, Vec::new(), 0);
        }
        self.registered = Some((server, agent));
        let facts = Facts {
            instance: instance(server),
            agent,
            has_channel: self.setup.door == Door::Channel,
            has_inbox: self.has_inbox(),
            has_hook: self.setup.door == Door::Hooked,
            legacy: self.setup.door == Door::Legacy,
            inbound: self.inbound,
            bypasses: self.bypasses,
        };
        self.run(&Operation::Register(facts));
        self.broker.stream = Some(Stream { server, after: 0, buffer: Vec::new(), awake: true });
        self.broker.hint = true;
        self.wake();
        let server = &mut self.servers[server];
        (server.is_up, server.mail_waits) = (true, true);
    }

    /// Leases of other processes end: what they held may have been shown. So may what the agent process before was given.
    pub fn note_ended_leases(&mut self, server: Option<usize>, gone: Option<u32>) {
        let instance = server.map(instance);
        for stored in self.tables.mail.iter().filter(|stored| stored.waiting) {
            let is_others = stored.holder.as_ref().is_some_and(|(other, _)| Some(other) != instance.as_ref());
            if let Some(fate) = self.fates.get_mut(&stored.seq).filter(|_| is_others) {
                (fate.is_exposed, fate.is_uncertain) = (true, true);
            }
        }
        if gone.is_some() {
            for fate in self.fates.values_mut().filter(|fate| fate.pushed == gone) {
                fate.is_uncertain = true;
            }
        }
    }
}

impl Agent {
    pub fn new(number: u32, is_live: bool) -> Self {
        Self { number, is_gone: false, is_live, queue: Vec::new(), reports: Vec::new(), asked: Vec::new(), polled: None }
    }
}

impl Fate {
    pub fn new(letter: Letter) -> Self {
        Self {
            letter,
            is_shown: false,
            is_begun: false,
            unmarked: (0, 0),
            is_exposed: false,
            pushed: None,
            shown_by_push: None,
            is_uncertain: false,
            is_confirmed: false,
            was_held: false,
            is_free: false,
            has_expired: false,
            asked: None,
        }
    }
}
