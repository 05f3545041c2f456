//! The promise that each message arrives: from every state a run without another fault comes to rest, and then nothing is missing.

use super::{
    operation::{Operation, Taking},
    promises,
    steps::Step,
    tables::Stored,
    world::{Door, Server, Slot, Stage, World, instance},
};

/// More steps than it takes to come to rest from any state.
const TO_REST: usize = 400;

/// The first promise that is broken in this state, or would be on the way to rest.
pub fn broken(world: &World) -> Option<String> {
    promises::broken(world).or_else(|| does_not_rest(world))
}

/// Whether messages stay unseen if from now on everything works.
fn does_not_rest(world: &World) -> Option<String> {
    if world.agent.is_gone && world.setup.door == Door::Legacy {
        return None; // nobody resumes it
    }
    let (mut world, mut steps) = (world.clone(), Vec::new());
    for _ in 0..TO_REST {
        let Some(step) = toward_rest(&world) else { return unseen(&world) };
        if let (Step::Call { .. }, Some(seq)) = (step, left_by_inbox(&world)) {
            return Some(format!("message {seq} could go into the inbox, and is left to a call"));
        }
        world = world.next(step);
        steps.push(step);
        if let Some(broken) = &world.broken {
            return Some(format!("on the way to rest: {broken}"));
        }
    }
    Some(format!("no rest: {:?}", &steps[TO_REST - 20..]))
}

fn unseen(world: &World) -> Option<String> {
    if let Some(broken) = promises::of_tables(world) {
        return Some(format!("at rest: {broken}"));
    }
    for stored in &world.tables.mail {
        let Some(fate) = world.fates.get(&stored.seq) else { continue };
        let is_seen = fate.is_shown || fate.is_confirmed;
        if world.setup.door == Door::Legacy && stored.state == 1 {
            return Some(format!("message {} was polled, and is not delivered at rest", stored.seq));
        }
        let may_stay = fate.has_expired || promises::may_be_held(world, fate) && !fate.is_free && stored.held;
        if !may_stay && (!is_seen || stored.waiting) {
            let seq = stored.seq;
            return Some(if is_seen { format!("message {seq} still waits at rest") } else { format!("message {seq} is lost") });
        }
    }
    None
}

/// A message that nobody has given to this agent process, though its inbox works.
fn left_by_inbox(world: &World) -> Option<i64> {
    let is_left = |stored: &&Stored| {
        let is_new = world.fates.get(&stored.seq).is_none_or(|fate| fate.pushed != Some(world.agent.number));
        stored.waiting && !stored.held && !stored.is_announced && stored.holder.is_none() && is_new
    };
    world.tables.mail.iter().filter(|_| world.pushes_by(Taking::Inbox)).find(is_left).map(|stored| stored.seq)
}

/// The next step of a run without faults in which the session calls `check_messages` until nothing waits.
fn toward_rest(world: &World) -> Option<Step> {
    if world.agent.is_gone {
        return Some(Step::Resume { is_live: true });
    }
    let is_alive = |server: &Server| !server.is_gone;
    let Some(server) = world.serving() else {
        return Some(world.servers.iter().position(is_alive).map_or(Step::Start, Step::Register));
    };
    if !world.agent.is_live && !world.agent.queue.is_empty() {
        return Some(Step::Lose);
    }
    let wanted = |step: &Step| match step {
        Step::Serve(_) | Step::Drop(_) | Step::Hear(..) | Step::Write(..) | Step::Push => true,
        Step::Acknowledge(_) | Step::Acknowledged(_) | Step::Show | Step::Hook | Step::Miss | Step::Poll | Step::Polled => true,
        Step::Ask(server, Slot::Door) => world.servers[*server].door.stage == Stage::Asking || world.pushes_by(Taking::Inbox),
        Step::Ask(..) => true,
        _ => false,
    };
    let is_due = |step: &Step| *step != Step::Poll || world.is_true(&Operation::IsPollDue);
    let progress = world.enabled().into_iter().find(|step| wanted(step) && is_due(step));
    progress.or_else(|| last_resort(world, server))
}

/// A waiting call ends, and another looks for what is left.
fn last_resort(world: &World, server: usize) -> Option<Step> {
    match world.servers[server].call.stage {
        Stage::Idle if world.setup.door != Door::Legacy => {
            let (instance, lease) = (instance(server), Some("new".to_owned()));
            let operation = Operation::IsAny { instance, lease, route: Taking::Check };
            world.is_true(&operation).then_some(Step::Call { server, route: Taking::Check, waits: false })
        }
        Stage::Asking => Some(Step::Cancel(server)),
        _ => None,
    }
}
