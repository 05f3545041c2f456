//! The promises, checked in every state.
//!
//! - A message is shown without a mark at most once, and with one only if it may have been shown before.
//! - Of one sender's messages, none is shown before an earlier one.
//! - A message that is delivered was shown. One that has expired or is held is not handed over.
//! - What a trusted inbox or channel was given is not handed over again.
//! - Whoever waits for messages is woken when there are any.
//! - From every state, without another fault, each message is shown that is neither held nor expired.

use super::{
    operation::{Given, Operation, RECIPIENT, Taking, agent_key},
    tables::Stored,
    world::{Door, Fate, Parked, Stage, World, instance},
};
use crate::wire::InboundRule;

/// A message was pushed into the agent process: it may have been shown from now on.
pub fn push(world: &mut World, given: Given, is_whole: bool) {
    let agent = world.agent.number;
    if let Some(fate) = world.fates.get_mut(&given.seq) {
        fate.pushed = Some(agent);
        fate.is_exposed |= is_whole && !world.agent.is_live;
    }
    world.agent.queue.push((given, is_whole));
}

/// A message, or its beginning, was shown to the session's model.
pub fn show(world: &mut World, given: &Given, is_whole: bool) {
    if let Some(why) = wrong_order(world, given).or_else(|| wrong_mark(&world.fates[&given.seq], given, is_whole)) {
        return world.break_promise(format!("message {} {why}", given.seq));
    }
    let Some(fate) = world.fates.get_mut(&given.seq) else { return };
    let unmarked = u8::from(!given.repeat);
    if is_whole {
        (fate.is_shown, fate.is_exposed, fate.unmarked.0) = (true, true, fate.unmarked.0 + unmarked);
    } else {
        (fate.is_begun, fate.unmarked.1) = (true, fate.unmarked.1 + unmarked);
    }
}

fn wrong_mark(fate: &Fate, given: &Given, is_whole: bool) -> Option<&'static str> {
    let before = if is_whole { fate.unmarked.0 } else { fate.unmarked.1 };
    match given.repeat {
        false if before > 0 => Some("was shown twice without a mark"),
        true if is_whole && !fate.is_exposed && fate.pushed.is_none() => Some("was marked, but cannot have been shown before"),
        _ => None,
    }
}

/// Earlier messages of the same sender come first, unless they are held, or may have been shown.
fn wrong_order(world: &World, given: &Given) -> Option<&'static str> {
    let this = &world.fates[&given.seq];
    let is_left_out =
        |fate: &Fate| fate.letter.from == this.letter.from && !may_be_known(fate) && !fate.has_expired && !fate.was_held;
    let is_wrong = !may_be_known(this) && !given.repeat && world.fates.range(..given.seq).any(|(_, fate)| is_left_out(fate));
    is_wrong.then_some("was shown before an earlier one")
}

/// Two messages of one sender that nobody has seen, if somebody has only the later.
fn overtaken(world: &World) -> Option<(i64, i64)> {
    let is_fresh = |fate: &Fate| !may_be_known(fate) && !fate.has_expired && !fate.was_held;
    let fresh = || world.tables.mail.iter().filter(|stored| stored.waiting && world.fates.get(&stored.seq).is_some_and(is_fresh));
    let sender = |seq| world.fates[&seq].letter.from;
    fresh().filter(|later| later.holder.is_some()).find_map(|later| {
        let is_overtaken =
            |stored: &&Stored| stored.seq < later.seq && sender(stored.seq) == sender(later.seq) && stored.holder != later.holder;
        fresh().find(is_overtaken).map(|earlier| (earlier.seq, later.seq))
    })
}

fn may_be_known(fate: &Fate) -> bool {
    fate.is_shown || fate.is_begun || fate.is_exposed || fate.pushed.is_some()
}

/// Messages were leased to someone who will show them.
pub fn note_given(world: &mut World, given: &[Given]) {
    let has_proved = world.tables.proved.as_deref() == Some(agent_key(world.agent.number).as_str());
    for given in given {
        let fate = &world.fates[&given.seq];
        let is_trusted = has_proved && world.setup.door != Door::Hooked && fate.pushed == Some(world.agent.number);
        let why = if fate.has_expired {
            "has expired and was handed over"
        } else if must_be_held(world, fate) && !fate.is_free && !fate.is_exposed && fate.pushed.is_none() {
            "must be held and was handed over"
        } else if is_trusted && !fate.is_uncertain && !fate.letter.is_long {
            "was handed over again although its route is trusted"
        } else {
            continue;
        };
        world.break_promise(format!("message {} {why}", given.seq));
    }
}

/// Whether the recipient's controls hold this message.
pub fn must_be_held(world: &World, fate: &Fate) -> bool {
    let passes = fate.letter.from == "cli" || fate.letter.answers;
    match world.inbound {
        _ if fate.letter.from == "broker" => false,
        InboundRule::Hold | InboundRule::Refuse => true,
        InboundRule::Match => world.bypasses && !passes,
        InboundRule::Accept => false,
    }
}

/// Held messages are exempt from the order.
pub fn note_held(world: &mut World) {
    for stored in world.tables.mail.iter().filter(|stored| stored.held) {
        if let Some(fate) = world.fates.get_mut(&stored.seq) {
            fate.was_held = true;
        }
    }
}

/// The first promise that is broken in this state.
pub fn broken(world: &World) -> Option<String> {
    world.broken.clone().or_else(|| of_tables(world)).or_else(|| sleeps(world))
}

/// What the tables say.
pub fn of_tables(world: &World) -> Option<String> {
    let was_read = |seq| world.fates.get(&seq).is_none_or(|fate| fate.is_shown || fate.is_confirmed);
    if let Some(stored) = world.tables.mail.iter().find(|stored| stored.state == 2 && !was_read(stored.seq)) {
        return Some(format!("message {} is delivered, but was not shown", stored.seq));
    }
    if let Some(stored) = world.tables.mail.iter().find(|stored| stored.waiting && stored.held && stored.holder.is_some()) {
        return Some(format!("message {} is held, and somebody hands it over", stored.seq));
    }
    if let Some((earlier, later)) = overtaken(world) {
        return Some(format!("message {later} is handed over before {earlier}"));
    }
    let is_left = |seq: &&i64| world.tables.mail.iter().all(|stored| stored.seq != **seq);
    if let Some(seq) = world.fates.keys().find(is_left) {
        return Some(format!("message {seq} is gone"));
    }
    let of_a = world.fates.values().filter(|fate| fate.has_expired && ["a", "b"].contains(&fate.letter.from)).count();
    let told = world.tables.notices.iter().filter(|(to, _)| to != RECIPIENT).count();
    (of_a != told).then(|| format!("{of_a} messages have expired, and {told} senders were told"))
}

/// Whether somebody sleeps though there are messages for them.
fn sleeps(world: &World) -> Option<String> {
    let can_get = |take: &Parked| {
        let (instance, lease) = (instance(take.server), Some(take.lease.clone()));
        world.may_take(take) && world.is_true(&Operation::IsAny { instance, lease, route: take.route })
    };
    if let Some(take) = world.broker.takes.iter().find(|take| !take.awake && !take.is_outdated && can_get(take)) {
        return Some(format!("{take:?} sleeps"));
    }
    let stream = world.broker.stream.as_ref().filter(|stream| !stream.awake)?;
    let instance = instance(stream.server);
    let pushes = Operation::IsAny { instance: instance.clone(), lease: None, route: Taking::Stream };
    if world.pushes_by(Taking::Stream) && world.waiting_calls() == 0 && world.is_true(&pushes) {
        return Some("the stream sleeps".to_owned());
    }
    let server = &world.servers[stream.server];
    let is_told = server.mail_waits || matches!(server.call.stage, Stage::Asking | Stage::Answered(..));
    let takes = Operation::IsAny { instance, lease: Some("new".to_owned()), route: Taking::Result };
    let has_mail = !world.pushes_by(Taking::Inbox) && world.is_true(&takes);
    (has_mail && !is_told).then(|| "nobody tells that messages wait".to_owned())
}
