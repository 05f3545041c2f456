//! The promises, checked in every state.
//!
//! - A message is shown without a mark at most once, and with one only if it may have been shown before.
//! - Of one sender's messages, none is shown before an earlier one.
//! - A message that is delivered was shown. One that has expired or is held is not handed over.
//! - What a trusted inbox or channel was given is not handed over again.
//! - Whoever waits for messages is woken when there are any.
//! - The inbox waits for what a broker that starts anew would wait for: what was written and not let in.
//! - From every state, without another fault, each message is shown that is neither held nor expired.

use super::{
    operation::{Answer, BYPASSING, CONTAINED, Given, MOST_POSTED, Operation, RECIPIENT, Taking, agent_key},
    tables::Stored,
    world::{Door, Fate, Letter, Parked, Stage, World, instance},
};
use crate::wire::{InboundRule, MessageId};
use std::collections::BTreeSet;

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
        true if is_whole && !fate.is_exposed && (fate.pushed.is_none() || fate.letter.is_long && fate.asked.is_none()) => {
            Some("was marked, but cannot have been shown before")
        }
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

/// Whether a reply that names this message proves the inbox or channel: it alone has shown the message.
pub fn proves(world: &World, seq: i64) -> bool {
    let is_pushed = |stored: &Stored| match &stored.holder {
        Some((_, lease)) => lease.is_none(),
        None => stored.state == 1,
    };
    let is_once = |stored: &Stored| stored.handed == i64::from(stored.holder.is_some() || !world.fates[&seq].letter.is_long);
    world.fates[&seq].shown_by_push == Some(world.agent.number)
        && world.tables.mail.iter().any(|stored| stored.seq == seq && is_pushed(stored) && is_once(stored))
}

/// The session has named `seq` in a reply.
pub fn note_reply(world: &mut World, is_proof: bool) {
    let has_proved = has_proved(world);
    if is_proof && !has_proved {
        world.break_promise("a reply names a pushed message, and proves nothing");
    }
    if has_proved && !world.agent.is_live && world.setup.door != Door::Hooked {
        world.break_promise("a dead inbox or channel has proved itself");
    }
}

/// A reply to `to` confirms the message that it names. If the inbox or channel has proved itself, it also confirms what that has shown of
/// the same peer, and no more.
/// The inbox waits no more for the message, unless the session knew it before.
pub fn note_confirmed(world: &mut World, before: &World, to: &str, names: Option<i64>) {
    let has_proved = has_proved(world);
    let was_delivered = |seq| before.tables.mail.iter().any(|old| old.seq == seq && old.state == 2);
    let is_wrong = |new: &&Stored| {
        let is_pushed_by = has_proved && world.fates.get(&new.seq).is_some_and(|fate| fate.letter.from == to);
        let may_be_confirmed = names == Some(new.seq) || is_pushed_by || was_delivered(new.seq);
        let must_be_confirmed = names == Some(new.seq) || is_pushed_by && new.state == 1 && !new.waiting;
        if new.state == 2 { !may_be_confirmed } else { must_be_confirmed }
    };
    if let Some(seq) = world.tables.mail.iter().find(is_wrong).map(|new| new.seq) {
        world.break_promise(format!("a reply to {to} confirms message {seq}, or should and does not"));
    }
    let is_wrong =
        |new: &&Stored| new.state == 2 && is_pending(world, new.seq) != (was_delivered(new.seq) && is_pending(before, new.seq));
    if let Some(seq) = world.tables.mail.iter().find(is_wrong).map(|new| new.seq) {
        world.break_promise(format!("a reply confirms message {seq}, and the inbox still waits for it, or waits no more"));
    }
}

/// The hook has reported that `seq` was let in.
pub fn note_report(world: &mut World, seq: i64) {
    if !has_proved(world) {
        world.break_promise("the hook reports a message, and the inbox has not proved itself");
    }
    if is_pending(world, seq) {
        world.break_promise(format!("message {seq} is let in, and the inbox still waits for it"));
    }
}

fn is_pending(world: &World, seq: i64) -> bool {
    world.broker.pending.as_ref().is_some_and(|pending| pending.contains(&seq))
}

/// After a restart the broker finds these messages written into the inbox and not let in.
pub fn note_pending(world: &mut World, pending: &[Given]) {
    let waits = |seq| world.tables.mail.iter().any(|stored| stored.seq == seq && stored.waiting);
    let is_pending = |given: &Given| waits(given.seq) && world.fates[&given.seq].pushed == Some(world.agent.number);
    if !pending.iter().all(is_pending) {
        world.break_promise(format!("the inbox waits for {pending:?}, which are not in it"));
    }
}

pub fn has_proved(world: &World) -> bool {
    world.tables.proved.as_deref() == Some(agent_key(world.agent.number).as_str())
}

/// A message that somebody shows or has shown, and that counts as never shown: it could be shown again without a mark.
fn uncounted(world: &World) -> Option<i64> {
    let in_hand = |seq| {
        let calls = world.servers.iter().filter(|server| server.is_up).flat_map(|server| [&server.call, &server.door]);
        calls.into_iter().any(|call| match &call.stage {
            Stage::Answered(given, _) | Stage::Holding(given) => given.iter().any(|given| given.seq == seq),
            _ => false,
        })
    };
    let is_pushed = |seq| world.agent.queue.iter().any(|(given, is_whole)| *is_whole && given.seq == seq);
    let may_be_shown = |seq| world.fates.get(&seq).is_some_and(|fate| fate.is_shown) || in_hand(seq) || is_pushed(seq);
    let waiting = world.tables.mail.iter().filter(|stored| stored.waiting && stored.handed == 0);
    waiting.map(|stored| stored.seq).find(|seq| may_be_shown(*seq))
}

fn may_be_known(fate: &Fate) -> bool {
    fate.is_shown || fate.is_begun || fate.is_exposed || fate.pushed.is_some()
}

/// Messages were leased to someone who will show them.
pub fn note_given(world: &mut World, given: &[Given]) {
    let has_proved = has_proved(world);
    for given in given {
        let fate = &world.fates[&given.seq];
        let is_trusted = has_proved && world.setup.door != Door::Hooked && fate.pushed == Some(world.agent.number);
        let why = if fate.has_expired {
            "has expired and was handed over"
        } else if must_be_held(world, fate) && !fate.is_free && !may_be_known(fate) {
            "must be held and was handed over"
        } else if is_trusted && !fate.is_uncertain && !fate.letter.is_long {
            "was handed over again although its route is trusted"
        } else {
            continue;
        };
        world.break_promise(format!("message {} {why}", given.seq));
    }
}

/// Held messages are written into the inbox, where the client asks its user: each once, the oldest first, and none if all are refused.
pub fn note_posted(world: &mut World, posted: &[Given], is_noted: bool) {
    let (agent, is_refused) = (Some(world.agent.number), world.inbound == InboundRule::Refuse);
    let is_due = |stored: &&Stored| stored.held && stored.waiting && world.fates[&stored.seq].asked != agent;
    let due = world.tables.mail.iter().filter(|_| !is_refused).filter(is_due).take(MOST_POSTED as usize);
    let is_marked = |seq| world.tables.mail.iter().any(|stored| stored.seq == seq && stored.is_offered);
    let is_right = due.map(|stored| stored.seq).eq(posted.iter().map(|given| given.seq));
    if !is_right || is_noted && !posted.iter().all(|given| is_marked(given.seq)) {
        world.break_promise(format!("{posted:?} are written into the inbox, but others are due, or this is not noted"));
    }
}

/// Whether the recipient's controls hold this message. A notice from the broker passes when it arrives.
pub fn must_be_held(world: &World, fate: &Fate) -> bool {
    fate.letter.from != "broker" && may_be_held(world, fate)
}

pub fn may_be_held(world: &World, fate: &Fate) -> bool {
    let Letter { from, answers, .. } = fate.letter;
    let passes = ["cli", "broker"].contains(&from) || answers && from != BYPASSING;
    match world.inbound {
        InboundRule::Hold | InboundRule::Refuse => true,
        InboundRule::Match => !passes && (world.bypasses || world.has_inbox()) && world.bypasses != (from == BYPASSING),
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
    world.broken.clone().or_else(|| of_tables(world)).or_else(|| sleeps(world)).or_else(|| forgotten(world))
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
    if let Some(seq) = uncounted(world) {
        return Some(format!("message {seq} may have been shown, and counts as new"));
    }
    let serving = world.registered.map(|(server, _)| instance(server));
    let is_stray = |stored: &&Stored| stored.holder.as_ref().is_some_and(|(instance, _)| Some(instance) != serving.as_ref());
    if let Some(stored) = world.tables.mail.iter().find(is_stray) {
        return Some(format!("message {} is held by a process that does not serve the session", stored.seq));
    }
    let expired =
        world.fates.iter().filter(|(_, fate)| fate.has_expired && ["a", BYPASSING, CONTAINED].contains(&fate.letter.from));
    let expired: BTreeSet<i64> = expired.map(|(seq, _)| *seq).collect();
    let told = world.tables.notices.iter().filter(|(to, _)| to != RECIPIENT);
    let told: BTreeSet<i64> = told.filter_map(|(_, question)| question.parse::<MessageId>().ok()).map(|id| id.seq()).collect();
    (expired != told).then(|| format!("{expired:?} have expired, and the senders of {told:?} were told"))
}

/// What the inbox waits for without reason; or does not wait for, but would after a restart of the broker: if that is lost, nobody sees it.
fn forgotten(world: &World) -> Option<String> {
    let known = world.broker.pending.as_ref()?;
    let agent = world.registered.map(|(_, agent)| agent);
    let is_written = |seq: &&i64| world.fates.get(*seq).is_none_or(|fate| fate.pushed == agent);
    if let Some(seq) = known.iter().find(|seq| !is_written(seq)) {
        return Some(format!("the inbox waits for message {seq}, which was not written into it"));
    }
    let Answer::Mail(pending) = world.tables.run(&Operation::Pending).answer else { return None };
    let forgotten = pending.into_iter().find(|given| !known.contains(&given.seq))?;
    Some(format!("message {} was written into the inbox, which does not wait for it", forgotten.seq))
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
