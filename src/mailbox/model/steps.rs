//! What may happen next, and what it does.

use super::{
    operation::{Answer, BYPASSING, Draft, Given, LASTING, Operation, RECIPIENT, Taking},
    promises,
    world::{Agent, Door, Fate, Letter, Memory, Server, Slot, Stage, World, instance},
};
use crate::wire::InboundRule;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The next message is sent, and once more under its key. `pushed`: the recipient's open stream pushes it.
    Send {
        pushed: bool,
    },
    /// The session sends a message to `a`, and may name a message.
    Reply {
        names: Option<i64>,
    },
    /// A call of a tool takes messages.
    Call {
        server: usize,
        route: Taking,
        waits: bool,
    },
    /// A take reaches the broker.
    Ask(usize, Slot),
    /// The broker looks again for a take that waits there.
    Serve(usize),
    /// The broker sees that nobody waits for this take.
    Drop(usize),
    Hear(usize, Slot),
    Write(usize, Slot),
    /// The answer to a call is not written, or a frame.
    Fail(usize, Slot),
    Cancel(usize),
    /// The stream pushes a message, or tells that messages wait.
    Push,
    Acknowledge(usize),
    Acknowledged(usize),
    /// The session shows the next pushed message.
    Show,
    /// The session drops it.
    Lose,
    Hook,
    Miss,
    Register(usize),
    /// Another server of the session starts.
    Start,
    Disconnect(usize),
    Kill(usize),
    KillBroker,
    KillAgent,
    /// The agent process turns to another conversation.
    Leave,
    /// The session is resumed by a new agent process.
    Resume {
        is_live: bool,
    },
    Expire,
    Control {
        inbound: InboundRule,
        bypasses: bool,
    },
    /// The broker writes held messages into the inbox. It may be killed before it notes that.
    Post {
        is_noted: bool,
    },
    LetIn,
    Release(i64),
    Poll,
    Polled,
    Nothing,
}

impl World {
    pub fn next(&self, step: Step) -> Self {
        let mut world = self.clone();
        world.go(step);
        world
    }

    fn go(&mut self, step: Step) {
        match step {
            Step::Send { pushed } => self.send(pushed),
            Step::Reply { names } => self.reply(names),
            Step::Call { server, route, waits } => self.call(server, route, waits),
            Step::Ask(server, slot) => self.ask(server, slot),
            Step::Serve(take) => self.serve(take),
            Step::Drop(take) => self.drop_take(take),
            Step::Hear(server, slot) => self.hear(server, slot),
            Step::Write(server, slot) => self.write(server, slot),
            Step::Fail(server, slot) => self.fail(server, slot),
            Step::Cancel(server) => self.cancel(server),
            Step::Push => self.push(),
            Step::Acknowledge(server) => self.acknowledge(server),
            Step::Acknowledged(server) => self.servers[server].acknowledgements.retain(|sent| !sent.is_sent),
            Step::Show => self.show_next(),
            Step::Lose => drop(self.agent.queue.remove(0)),
            Step::Hook => self.hook(),
            Step::Miss => self.miss(),
            Step::Register(server) => self.register(server),
            Step::Start => self.servers.push(Server::default()),
            Step::Disconnect(server) => self.disconnect(server),
            Step::Kill(server) => self.kill(server),
            Step::KillBroker => self.kill_broker(),
            Step::KillAgent => self.kill_agent(),
            Step::Leave => self.leave(),
            Step::Resume { is_live } => self.resume(is_live),
            Step::Expire => self.expire(),
            Step::Control { inbound, bypasses } => self.control(inbound, bypasses),
            Step::Post { is_noted } => self.post(is_noted),
            Step::LetIn => self.let_in(),
            Step::Release(seq) => self.release(seq),
            Step::Poll => self.agent.polled = Some(self.poll()),
            Step::Polled => self.polled(),
            Step::Nothing => {}
        }
        self.spend(step);
        promises::note_held(self);
    }

    fn spend(&mut self, step: Step) {
        let spent = &mut self.spent;
        match step {
            Step::Lose if self.agent.is_live => spent.faults += 1,
            Step::Disconnect(_) | Step::Kill(_) | Step::KillBroker | Step::KillAgent | Step::Leave => spent.faults += 1,
            Step::Fail(_, Slot::Door) | Step::Post { is_noted: false } => spent.faults += 1,
            Step::Cancel(_) | Step::Fail(..) => spent.cancels += 1,
            Step::Reply { .. } => spent.replies += 1,
            Step::Control { .. } | Step::Release(_) => spent.controls += 1,
            Step::Send { .. } => spent.letters += 1,
            Step::Expire => spent.expired = true,
            _ => {}
        }
    }

    fn draft(&self, letter: Letter, number: usize) -> Draft {
        let reply_to = letter.answers.then_some(if letter.from == BYPASSING { 2 } else { 1 });
        Draft {
            from: letter.from.to_owned(),
            to: RECIPIENT.to_owned(),
            key: number.to_string(),
            is_long: letter.is_long,
            reply_to,
            names: true,
            ..Draft::default()
        }
    }

    fn send(&mut self, pushed: bool) {
        let letter = self.setup.letters[self.spent.letters];
        let stream = self.registered.filter(|_| pushed).map(|(server, _)| instance(server));
        let draft = Draft { stream, ..self.draft(letter, self.spent.letters) };
        match self.run(&Operation::Send(draft.clone())) {
            Answer::Number(seq) => drop(self.fates.insert(seq, Fate::new(letter))),
            other => self.break_promise(format!("a message was not accepted: {other:?}")),
        }
        let before = self.tables.clone();
        self.run(&Operation::Send(draft));
        if self.tables != before {
            self.break_promise("a message was accepted twice under one key");
        }
    }

    fn reply(&mut self, names: Option<i64>) {
        let sender = names.map(|seq| self.fates[&seq].letter.from).filter(|from| *from != "broker");
        let (from, to, key) = (RECIPIENT.to_owned(), sender.unwrap_or("a").to_owned(), self.spent.replies.to_string());
        let is_proof = names.is_some_and(|seq| promises::proves(self, seq));
        let (before, receiver) = (self.clone(), to.clone());
        let answer = self.run(&Operation::Send(Draft { from, to, key, reply_to: names, names: true, ..Draft::default() }));
        if !matches!(answer, Answer::Number(_)) {
            self.break_promise(format!("a reply was not accepted: {answer:?}"));
        }
        if let Some(fate) = names.and_then(|seq| self.fates.get_mut(&seq)) {
            fate.is_confirmed = true;
        }
        promises::note_reply(self, is_proof);
        promises::note_confirmed(self, &before, &receiver, names);
    }

    fn show_next(&mut self) {
        let (given, is_whole) = self.agent.queue.remove(0);
        promises::show(self, &given, is_whole);
        if let Some(fate) = self.fates.get_mut(&given.seq).filter(|fate| fate.unmarked.0 + fate.unmarked.1 == 1 && !given.repeat)
        {
            fate.shown_by_push = Some(self.agent.number);
        }
        if self.setup.door == Door::Hooked {
            self.agent.reports.push(given.seq);
        }
    }

    fn hook(&mut self) {
        let report = self.agent.reports.remove(0);
        let is_held = self.tables.mail.iter().any(|stored| stored.seq == report && stored.held && stored.waiting);
        self.run(&Operation::Prompt { peer: RECIPIENT, messages: vec![report] });
        if let Some(fate) = self.fates.get_mut(&report).filter(|_| is_held) {
            (fate.is_free, fate.asked) = (true, None);
        }
        promises::note_report(self, report);
    }

    fn miss(&mut self) {
        for seq in self.broker.pending.clone().into_iter().flatten() {
            if let Some(fate) = self.fates.get_mut(&seq) {
                fate.is_uncertain = true;
            }
        }
        self.run(&Operation::Miss);
    }

    fn disconnect(&mut self, server: usize) {
        self.broker.stream = self.broker.stream.take().filter(|stream| stream.server != server);
        self.broker.takes.iter_mut().filter(|take| take.server == server).for_each(|take| take.is_cut = true);
        let server = &mut self.servers[server];
        server.is_up = false;
        server.acknowledgements.iter_mut().for_each(|sent| sent.is_sent = false);
        for call in [&mut server.call, &mut server.door].into_iter().chain(&mut server.returns) {
            if matches!(call.stage, Stage::Answered(..)) {
                call.stage = Stage::Asking;
            }
        }
    }

    fn kill(&mut self, server: usize) {
        self.disconnect(server);
        self.servers[server] = Server { is_gone: true, ..Server::default() };
    }

    fn kill_broker(&mut self) {
        (0..self.servers.len()).for_each(|server| self.disconnect(server));
        self.broker = Memory::default();
    }

    fn kill_agent(&mut self) {
        (0..self.servers.len()).for_each(|server| self.kill(server));
        self.agent = Agent { is_gone: true, ..Agent::new(self.agent.number, false) };
    }

    fn leave(&mut self) {
        self.kill_agent();
        self.note_ended_leases(None, Some(self.agent.number));
        self.run(&Operation::Leave);
    }

    fn resume(&mut self, is_live: bool) {
        self.agent = Agent::new(self.agent.number + 1, is_live);
        self.servers.push(Server::default());
    }

    fn expire(&mut self) {
        for stored in self.tables.mail.iter().filter(|stored| stored.state < 2) {
            if let Some(fate) = self.fates.get_mut(&stored.seq).filter(|fate| fate.letter.from != LASTING) {
                fate.has_expired = true;
            }
        }
        if self.run(&Operation::Expire) != Answer::Yes(true) {
            self.break_promise("the time of the next expiry is wrong");
        }
        // The notices to the session itself, for what it has sent.
        for stored in &self.tables.mail {
            let notice = Letter { from: "broker", is_long: false, answers: false };
            self.fates.entry(stored.seq).or_insert_with(|| Fate::new(notice));
        }
    }

    fn control(&mut self, inbound: InboundRule, bypasses: bool) {
        self.run(&Operation::Control { inbound, bypasses, is_again: false });
        if self.tables.run(&Operation::Control { inbound, bypasses, is_again: true }).tables != self.tables {
            self.break_promise("controls that stay as they are change messages");
        }
        (self.inbound, self.bypasses) = (inbound, bypasses);
        self.wake();
    }

    fn post(&mut self, is_noted: bool) {
        let given = self.mail(&Operation::ToPost);
        if is_noted {
            self.run(&Operation::Posted(given.iter().map(|given| given.seq).collect()));
        }
        promises::note_posted(self, &given, is_noted);
        for given in given {
            if let Some(fate) = self.fates.get_mut(&given.seq) {
                (fate.pushed, fate.asked, fate.is_uncertain) = (Some(self.agent.number), Some(self.agent.number), true);
            }
            self.agent.asked.push(given);
        }
        if !is_noted {
            self.kill_broker();
        }
    }

    /// The session's user lets a held message in.
    fn let_in(&mut self) {
        let given = self.agent.asked.remove(0);
        let is_whole = !self.fates[&given.seq].letter.is_long;
        promises::show(self, &given, is_whole);
        if self.setup.door == Door::Hooked {
            self.agent.reports.push(given.seq);
        }
    }

    fn release(&mut self, seq: i64) {
        let is_held = self.tables.mail.iter().any(|stored| stored.seq == seq && stored.held && stored.state < 2);
        if self.run(&Operation::Release(seq)) != Answer::Yes(is_held) {
            self.break_promise(format!("a release says that it has not released message {seq}, or has"));
        }
        if let Some(fate) = self.fates.get_mut(&seq) {
            fate.is_free = true;
        }
    }

    fn poll(&mut self) -> Vec<Given> {
        let given = self.mail(&Operation::Poll);
        promises::note_given(self, &given);
        given
    }

    fn polled(&mut self) {
        for given in self.agent.polled.take().into_iter().flatten() {
            promises::show(self, &given, true);
        }
    }
}
