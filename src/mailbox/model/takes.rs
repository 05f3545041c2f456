//! Takes, pushes and acknowledgements: the broker's side as `broker/` has it, and the server's as `session/` has it.

use super::{
    operation::{Given, Limit, Operation, RECIPIENT, Taking},
    promises,
    world::{Acknowledging, Call, Door, Parked, Server, Slot, Stage, World, instance},
};
use crate::wire::{Outcome as Became, Route};

impl Server {
    pub fn slot(&mut self, slot: Slot) -> &mut Call {
        match slot {
            Slot::Call => &mut self.call,
            Slot::Door => &mut self.door,
            Slot::Return => &mut self.returns[0],
        }
    }

    fn queue(&mut self, route: Route, seq: i64, outcome: Became, lease: Option<&str>) {
        let lease = lease.map(str::to_owned);
        self.acknowledgements.push(Acknowledging { route, seq, outcome, lease, is_sent: false });
    }
}

fn route_of(taking: Taking) -> Route {
    match taking {
        Taking::Stream => Route::Channel,
        Taking::Result => Route::ToolResult,
        Taking::Check => Route::CheckMessages,
        Taking::Inbox => Route::Inbox,
    }
}

impl World {
    fn slot(&self, server: usize, slot: Slot) -> Call {
        self.servers[server].clone().slot(slot).clone()
    }

    pub fn is_parked(&self, server: usize, slot: Slot) -> bool {
        let lease = self.slot(server, slot).lease;
        self.broker.takes.iter().any(|take| take.server == server && take.lease == lease && !take.is_cut && !take.is_outdated)
    }

    /// A lease that names nothing yet.
    fn fresh_lease(&self, server: usize) -> String {
        let (own, name) = (&self.servers[server], instance(server));
        let calls = [&own.call, &own.door].into_iter().chain(&own.returns).filter(|call| call.stage != Stage::Idle);
        let of_calls = calls.map(|call| call.lease.clone());
        let of_takes = self.broker.takes.iter().filter(|take| take.server == server).map(|take| take.lease.clone());
        let of_table = self.tables.mail.iter().filter_map(|stored| stored.holder.clone());
        let of_table = of_table.filter(|(holder, _)| *holder == name).filter_map(|(_, lease)| lease);
        let of_queue = own.acknowledgements.iter().filter_map(|queued| queued.lease.clone());
        let used: Vec<String> = of_calls.chain(of_takes).chain(of_table).chain(of_queue).collect();
        (0..).map(|number: usize| format!("l{number}")).find(|lease| !used.contains(lease)).unwrap()
    }

    /// A call begins, and its take reaches the broker.
    pub fn call(&mut self, server: usize, route: Taking, waits: bool) {
        let lease = self.fresh_lease(server);
        self.servers[server].call = Call { stage: Stage::Asking, route, lease, waits };
        self.servers[server].mail_waits = false;
        self.ask(server, Slot::Call);
    }

    pub fn ask(&mut self, server: usize, slot: Slot) {
        if self.slot(server, slot).stage == Stage::Idle {
            let lease = self.fresh_lease(server);
            self.servers[server].door = Call { stage: Stage::Asking, route: Taking::Inbox, lease, waits: true };
        }
        let Call { route, lease, waits, .. } = self.slot(server, slot);
        for older in self.broker.takes.iter_mut().filter(|take| take.server == server && take.lease == lease) {
            (older.is_outdated, older.awake) = (true, true);
        }
        if route == Taking::Inbox {
            self.recall();
        }
        let take = Parked { server, lease, route, awake: false, is_outdated: false, is_cut: false };
        let (given, more) = self.attempt(&take);
        if !given.is_empty() {
            self.servers[server].slot(slot).stage = Stage::Answered(given, more);
        } else if waits && slot != Slot::Return {
            self.broker.takes.push(take);
            self.wake_takes_of_calls(route);
        } else {
            self.finish(server, slot);
        }
    }

    /// A take ends without messages.
    fn finish(&mut self, server: usize, slot: Slot) {
        match slot {
            Slot::Return => drop(self.servers[server].returns.remove(0)),
            _ => *self.servers[server].slot(slot) = Call::default(),
        }
    }

    /// A call that begins or ends to wait changes who gets the messages.
    fn wake_takes_of_calls(&mut self, route: Taking) {
        if route == Taking::Inbox {
            return;
        }
        let own = self.broker.takes.len().checked_sub(1);
        self.wake();
        if let Some(take) = own.and_then(|own| self.broker.takes.get_mut(own)) {
            take.awake = false;
        }
    }

    /// After its restart the broker learns from the table what was not let in.
    fn recall(&mut self) {
        if self.broker.pending.is_none() {
            let pending = self.mail(&Operation::Pending);
            promises::note_pending(self, &pending);
            self.broker.pending = Some(pending.into_iter().map(|given| given.seq).collect());
        }
    }

    /// The messages that the broker leases to a take, and whether more wait.
    fn attempt(&mut self, take: &Parked) -> (Vec<Given>, bool) {
        let (instance, lease) = (instance(take.server), Some(take.lease.clone()));
        let before: Vec<i64> = self.leased_to(&instance, lease.as_deref());
        if before.is_empty() && !self.may_take(take) {
            return (Vec::new(), false);
        }
        let (route, is_outdated) = (take.route, take.is_outdated);
        if !self.is_true(&Operation::IsAny { instance: instance.clone(), lease: lease.clone(), route }) {
            return (Vec::new(), false);
        }
        let operation = Operation::Lease { instance, lease, route, is_outdated, limit: Limit::None };
        let given = self.mail(&operation);
        let is_announced = |given: &Given| self.tables.mail.iter().any(|stored| stored.seq == given.seq && stored.is_announced);
        if take.route != Taking::Check && given.iter().any(is_announced) {
            self.break_promise(format!("of {given:?} the beginning was shown, and {:?} shows it again", take.route));
        }
        let fresh: Vec<Given> = given.iter().filter(|given| !before.contains(&given.seq)).cloned().collect();
        promises::note_given(self, &fresh);
        let waiting = self.tables.mail.iter().filter(|stored| stored.waiting).count();
        let more = waiting > given.len();
        (given, more)
    }

    fn leased_to(&self, instance: &str, lease: Option<&str>) -> Vec<i64> {
        let is_its = |holder: &(String, Option<String>)| holder.0 == instance && holder.1.as_deref() == lease;
        let leased = self.tables.mail.iter().filter(|stored| stored.holder.as_ref().is_some_and(is_its));
        leased.map(|stored| stored.seq).collect()
    }

    /// Whether the broker lets a take look for messages now: the inbox takes one frame at a time, and calls leave it to the inbox.
    pub fn may_take(&self, take: &Parked) -> bool {
        let is_pending =
            self.setup.door == Door::Hooked && self.broker.pending.as_ref().is_some_and(|pending| !pending.is_empty());
        match take.route {
            Taking::Inbox => self.pushes_by(Taking::Inbox) && self.waiting_calls() == 0 && !is_pending,
            Taking::Result => !self.pushes_by(Taking::Inbox),
            _ => !(is_pending && self.pushes_by(Taking::Inbox)),
        }
    }

    pub fn serve(&mut self, at: usize) {
        self.broker.takes[at].awake = false;
        let take = self.broker.takes[at].clone();
        let (given, more) = self.attempt(&take);
        if given.is_empty() && !take.is_outdated {
            return;
        }
        self.broker.takes.remove(at);
        if take.route != Taking::Inbox {
            self.wake();
        }
        let is_its = |call: &&mut Call| call.lease == take.lease && call.stage == Stage::Asking;
        let server = &mut self.servers[take.server];
        let slot = [&mut server.call, &mut server.door].into_iter().find(is_its);
        if let Some(call) = slot.filter(|_| !take.is_cut && !take.is_outdated) {
            call.stage = Stage::Answered(given, more);
        }
    }

    pub fn drop_take(&mut self, at: usize) {
        let take = self.broker.takes.remove(at);
        if take.route != Taking::Inbox {
            self.wake();
        }
    }

    pub fn hear(&mut self, server: usize, slot: Slot) {
        let server = &mut self.servers[server];
        let Stage::Answered(given, more) = server.slot(slot).stage.clone() else { return };
        server.mail_waits |= more && slot != Slot::Door;
        if slot == Slot::Return {
            let call = server.returns.remove(0);
            given.iter().for_each(|given| server.queue(route_of(call.route), given.seq, Became::Released, Some(&call.lease)));
        } else {
            server.slot(slot).stage = Stage::Holding(given);
        }
    }

    /// A call's answer is written, or the frames of the door.
    pub fn write(&mut self, server: usize, slot: Slot) {
        let Call { stage: Stage::Holding(given), route, lease, .. } = std::mem::take(self.servers[server].slot(slot)) else {
            return;
        };
        for given in given {
            let is_whole = route == Taking::Check || !self.fates[&given.seq].letter.is_long;
            let outcome = match route {
                _ if !is_whole => Became::Announced,
                Taking::Inbox => Became::Offered,
                _ => Became::Delivered,
            };
            self.servers[server].queue(route_of(route), given.seq, outcome, Some(&lease));
            match route {
                Taking::Inbox => promises::push(self, given, is_whole),
                _ => promises::show(self, &given, is_whole),
            }
        }
    }

    pub fn fail(&mut self, server: usize, slot: Slot) {
        let Call { stage: Stage::Holding(given), route, lease, .. } = std::mem::take(self.servers[server].slot(slot)) else {
            return;
        };
        given.iter().for_each(|given| self.servers[server].queue(route_of(route), given.seq, Became::Released, Some(&lease)));
    }

    /// The client cancels a call before its answer has arrived.
    pub fn cancel(&mut self, server: usize) {
        let call = std::mem::take(&mut self.servers[server].call);
        for take in self.broker.takes.iter_mut().filter(|take| take.server == server && take.lease == call.lease) {
            take.is_cut = true;
        }
        let server = &mut self.servers[server];
        server.returns.push(Call { stage: Stage::Asking, ..call });
        server.mail_waits = true;
    }

    /// The stream looks again: it pushes a message, tells that messages wait, or waits.
    pub fn push(&mut self) {
        let Some(mut stream) = self.broker.stream.clone() else { return };
        if stream.buffer.is_empty() {
            stream.buffer = self.next_batch(stream.server, stream.after);
            stream.after = stream.buffer.last().map_or(stream.after, |last| stream.after.max(last.seq));
        }
        let next = (!stream.buffer.is_empty()).then(|| stream.buffer.remove(0));
        stream.awake = next.is_some();
        let server = stream.server;
        self.broker.stream = Some(stream);
        match next {
            Some(given) => self.push_into_channel(server, given),
            None if std::mem::take(&mut self.broker.hint) => {
                let waits = self.is_true(&Operation::IsWaiting);
                self.servers[server].mail_waits |= waits;
            }
            None => {}
        }
    }

    fn next_batch(&mut self, server: usize, after: i64) -> Vec<Given> {
        let instance = instance(server);
        let leased = self.mail(&Operation::Leased { instance: instance.clone(), after });
        if !leased.is_empty() || self.waiting_calls() > 0 || !self.pushes_by(Taking::Stream) {
            return leased;
        }
        let given =
            self.mail(&Operation::Lease { instance, lease: None, route: Taking::Stream, is_outdated: false, limit: Limit::None });
        promises::note_given(self, &given);
        given
    }

    fn push_into_channel(&mut self, server: usize, given: Given) {
        if !given.repeat && self.servers[server].pushed.contains(&given.seq) {
            return;
        }
        let is_whole = !self.fates[&given.seq].letter.is_long;
        let server = &mut self.servers[server];
        server.pushed.insert(given.seq);
        server.queue(Route::Channel, given.seq, if is_whole { Became::Offered } else { Became::Announced }, None);
        promises::push(self, given, is_whole);
    }

    pub fn acknowledge(&mut self, server: usize) {
        let queue = &mut self.servers[server].acknowledgements;
        let Some(route) = queue.first().map(|first| first.route) else { return };
        let batch: Vec<_> = queue.iter_mut().take_while(|queued| queued.route == route).collect();
        let messages = batch.iter().map(|queued| (queued.seq, queued.outcome, queued.lease.clone())).collect();
        let is_shown = |queued: &&Acknowledging| queued.outcome == Became::Delivered;
        let shown: Vec<i64> = batch.iter().map(|queued| &**queued).filter(is_shown).map(|queued| queued.seq).collect();
        batch.into_iter().for_each(|queued| queued.is_sent = true);
        self.run(&Operation::Acknowledge { peer: RECIPIENT, route, messages });
        if self.tables.mail.iter().any(|stored| shown.contains(&stored.seq) && stored.state != 2) {
            self.break_promise(format!("{shown:?} were shown, and do not count as delivered"));
        }
    }
}
