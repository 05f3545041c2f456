//! Which steps may happen now.

use super::{
    operation::Taking,
    steps::Step,
    world::{Agent, Door, Slot, Stage, World},
};
use crate::wire::InboundRule;

/// The most takes of one server whose messages go back.
const MOST_RETURNS: usize = 2;

impl World {
    /// Everything that may happen now.
    pub fn enabled(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.broken.is_some() {
            return steps;
        }
        self.sends(&mut steps);
        self.inside_broker(&mut steps);
        (0..self.servers.len())
            .filter(|server| !self.servers[*server].is_gone)
            .for_each(|server| self.of_server(server, &mut steps));
        if self.agent.is_gone {
            if self.agent.number + 1 < self.setup.agents && self.setup.door != Door::Legacy {
                steps.extend([Step::Resume { is_live: true }, Step::Resume { is_live: false }]);
            }
        } else {
            self.of_agent(&mut steps);
        }
        self.faults(&mut steps);
        self.controls(&mut steps);
        steps
    }

    fn sends(&self, steps: &mut Vec<Step>) {
        let can_push = self.broker.stream.is_some() && self.waiting_calls() == 0 && self.pushes_by(Taking::Stream);
        if self.spent.letters < self.setup.letters.len() {
            steps.push(Step::Send { pushed: can_push });
        }
    }

    fn inside_broker(&self, steps: &mut Vec<Step>) {
        for (at, take) in self.broker.takes.iter().enumerate() {
            steps.extend(take.awake.then_some(Step::Serve(at)));
            steps.extend(take.is_cut.then_some(Step::Drop(at)));
        }
        steps.extend(self.broker.stream.as_ref().filter(|stream| stream.awake).map(|_| Step::Push));
        let is_over = |seq: &i64| self.agent.queue.iter().all(|(given, _)| given.seq != *seq);
        let is_missed = self.broker.pending.as_ref().is_some_and(|pending| !pending.is_empty() && pending.iter().all(is_over));
        steps.extend((self.setup.door == Door::Hooked && is_missed && self.agent.reports.is_empty()).then_some(Step::Miss));
    }

    fn of_server(&self, number: usize, steps: &mut Vec<Step>) {
        let server = &self.servers[number];
        if !server.is_up {
            steps.extend((!self.agent.is_gone).then_some(Step::Register(number)));
        } else if server.acknowledgements.iter().any(|sent| sent.is_sent) {
            steps.push(Step::Acknowledged(number));
        } else if !server.acknowledgements.is_empty() {
            steps.push(Step::Acknowledge(number));
        }
        for (slot, call) in
            [(Slot::Call, Some(&server.call)), (Slot::Door, Some(&server.door)), (Slot::Return, server.returns.first())]
        {
            match call.map(|call| &call.stage) {
                Some(Stage::Idle) => self.begins(number, slot, steps),
                Some(Stage::Asking) if server.is_up && !self.is_parked(number, slot) => steps.push(Step::Ask(number, slot)),
                Some(Stage::Answered(..)) => steps.push(Step::Hear(number, slot)),
                Some(Stage::Holding(_)) => steps.push(Step::Write(number, slot)),
                _ => {}
            }
        }
    }

    fn begins(&self, number: usize, slot: Slot, steps: &mut Vec<Step>) {
        let server = &self.servers[number];
        if !server.is_up || self.setup.door == Door::Legacy {
            return;
        }
        match slot {
            Slot::Call => {
                steps.extend([true, false].map(|waits| Step::Call { server: number, route: Taking::Check, waits }));
                steps.extend(server.mail_waits.then_some(Step::Call { server: number, route: Taking::Result, waits: false }));
            }
            Slot::Door => steps.extend(self.has_inbox().then_some(Step::Ask(number, slot))),
            Slot::Return => {}
        }
    }

    fn of_agent(&self, steps: &mut Vec<Step>) {
        let Agent { is_live, queue, reports, asked, polled, .. } = &self.agent;
        steps.extend((*is_live && !queue.is_empty()).then_some(Step::Show));
        steps.extend((!reports.is_empty()).then_some(Step::Hook));
        if self.serving().is_some() && self.spent.replies < self.setup.replies && (queue.is_empty() || !*is_live) {
            steps.push(Step::Reply { names: None });
            let seen = self.fates.iter().filter(|(_, fate)| fate.is_shown || fate.is_begun);
            steps.extend(seen.map(|(seq, _)| Step::Reply { names: Some(*seq) }));
        }
        steps.extend((*is_live && !asked.is_empty()).then_some(Step::LetIn));
        if self.setup.door == Door::Legacy {
            steps.push(if polled.is_some() { Step::Polled } else { Step::Poll });
        }
    }

    fn faults(&self, steps: &mut Vec<Step>) {
        let alive: Vec<usize> = (0..self.servers.len()).filter(|server| !self.servers[*server].is_gone).collect();
        if self.servers.len() < self.setup.servers && !self.agent.is_gone {
            steps.push(Step::Start);
        }
        if self.spent.cancels < self.setup.cancels {
            alive.iter().for_each(|server| self.cancels(*server, steps));
        }
        if self.spent.faults >= self.setup.faults {
            return;
        }
        let may_lose = !self.agent.is_live || self.setup.door == Door::Hooked;
        steps.extend((may_lose && !self.agent.queue.is_empty()).then_some(Step::Lose));
        for server in alive {
            steps.push(Step::Kill(server));
            steps.extend(self.servers[server].is_up.then_some(Step::Disconnect(server)));
            steps.extend(matches!(self.servers[server].door.stage, Stage::Holding(_)).then_some(Step::Fail(server, Slot::Door)));
        }
        steps.push(Step::KillBroker);
        steps.extend(self.can_post().then_some(Step::Post { is_noted: false }));
        if !self.agent.is_gone {
            steps.push(Step::KillAgent);
            steps.extend(
                (self.setup.door != Door::Legacy && self.registered.is_some_and(|(_, agent)| agent == self.agent.number))
                    .then_some(Step::Leave),
            );
        }
    }

    fn cancels(&self, number: usize, steps: &mut Vec<Step>) {
        let server = &self.servers[number];
        match server.call.stage {
            Stage::Asking | Stage::Answered(..) if server.returns.len() < MOST_RETURNS => steps.push(Step::Cancel(number)),
            Stage::Holding(_) => steps.push(Step::Fail(number, Slot::Call)),
            _ => {}
        }
    }

    /// Whether the broker writes held messages into the inbox.
    fn can_post(&self) -> bool {
        self.broker.stream.is_some() && self.has_inbox() && self.tables.mail.iter().any(|stored| stored.held)
    }

    fn controls(&self, steps: &mut Vec<Step>) {
        let can_post = self.can_post();
        steps.extend(can_post.then_some(Step::Post { is_noted: true }));
        steps.extend((self.setup.expires && !self.spent.expired && self.spent.letters > 0).then_some(Step::Expire));
        if self.spent.controls >= self.setup.controls {
            return;
        }
        for (inbound, bypasses) in
            [(InboundRule::Match, false), (InboundRule::Match, true), (InboundRule::Hold, false), (InboundRule::Refuse, false)]
        {
            let is_new = (inbound, bypasses) != (self.inbound, self.bypasses);
            steps.extend(is_new.then_some(Step::Control { inbound, bypasses }));
        }
        steps.extend(self.tables.mail.iter().filter(|stored| stored.held).map(|stored| Step::Release(stored.seq)));
    }
}
