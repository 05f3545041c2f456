//! Requests that no client should send, or sends too late. In every state they change nothing. And some that clients of other kinds send,
//! which change only what they should.

use super::{
    operation::{Answer, BYPASSING, Draft, GUESSED, Given, LASTING, Limit, Operation, RECIPIENT, Taking},
    promises,
    tables::{Outcome, Stored, Tables},
    world::{Door, World, instance},
};
use crate::{
    mailbox::InboxNews,
    wire::{HOOK_LEASE, Outcome as Became, Route},
};

/// The routes of a stream and of a take.
const ROUTES: [Route; 2] = [Route::Channel, Route::CheckMessages];

/// The first of these requests that changes something, or is not answered as it should be.
pub fn broken(world: &World) -> Option<String> {
    check(world).err()
}

fn check(world: &World) -> Result<(), String> {
    acknowledged(world)?;
    sent(world)?;
    taken(world)?;
    moved(world)?;
    hooked(world)?;
    polled(world)?;
    expired(world)
}

/// What an operation leads to.
fn run(tables: &Tables, operation: &Operation) -> Result<Outcome, String> {
    let outcome = tables.run(operation);
    outcome.wrong.clone().map_or(Ok(outcome), Err)
}

fn run_all(tables: &Tables, operations: Vec<Operation>) -> Result<Outcome, String> {
    run(tables, &Operation::All(operations))
}

fn send_all(tables: &Tables, drafts: Vec<Draft>) -> Result<Outcome, String> {
    run_all(tables, drafts.into_iter().map(Operation::Send).collect())
}

fn ensure(is_kept: bool, otherwise: &str) -> Result<(), String> {
    if is_kept { Ok(()) } else { Err(otherwise.to_owned()) }
}

/// Acknowledgements, and reports of hooks.
fn acknowledged(world: &World) -> Result<(), String> {
    let (tables, mail) = (&world.tables, &world.tables.mail);
    let idle = run_all(tables, mail.iter().flat_map(idle).collect())?;
    ensure(idle.tables == *tables, "an acknowledgement or release without an object changes something")?;
    // Any report of the hook proves the inbox, but nothing else.
    let unknown = run_all(tables, mail.iter().flat_map(unknown_prompts).collect())?;
    ensure(unknown.tables.mail == *mail, "the hook's report of an unknown message changes something")?;
    let has_route = !matches!(world.setup.door, Door::None | Door::Legacy);
    ensure(has_route || unknown.tables.proved == tables.proved, "a hook proves an inbox or channel that is not there")?;
    let spoken = run(tables, &Operation::Prompt { peer: RECIPIENT, messages: Vec::new() })?;
    ensure(spoken.tables == *tables && spoken.news == [InboxNews::Prompted], "a prompt without messages proves something")?;
    let is_pending = world.has_inbox() || run(tables, &Operation::Pending)?.answer == Answer::Mail(Vec::new());
    ensure(is_pending, "the inbox waits for what was pushed into a channel")?;
    for stored in mail {
        given_back(tables, stored)?;
        let released = run(tables, &Operation::Release(stored.seq + GUESSED))?.answer;
        ensure(released == Answer::Yes(false), "a message is released under a guessed id")?;
    }
    Ok(())
}

/// Messages that are sent.
fn sent(world: &World) -> Result<(), String> {
    let (tables, mail) = (&world.tables, &world.tables.mail);
    let outcome = send_all(tables, refused(world))?;
    ensure(outcome.answer == Answer::Number(0) && outcome.tables == *tables, "a message is accepted that must be refused")?;
    let outcome = send_all(tables, vec![Draft { stream: Some("another".to_owned()), ..draft("a", RECIPIENT) }])?;
    let is_anothers = |stored: &Stored| stored.holder.as_ref().is_some_and(|(instance, _)| instance == "another");
    let is_pushed = outcome.tables.mail.iter().any(is_anothers);
    ensure(!is_pushed, "a message is pushed to a process that does not serve the session")?;
    let drafts = accepted(world);
    let (number, outcome) = (i64::try_from(drafts.len()).unwrap(), send_all(tables, drafts)?);
    ensure(outcome.answer == Answer::Number(number), "a message is refused that must be accepted")?;
    ensure(outcome.tables.proved == tables.proved, "a channel is proved by a message that was pushed into another")?;
    let outcome = send_all(tables, mail.iter().flat_map(|stored| confirming_nothing(world, stored)).collect())?;
    ensure(outcome.tables.mail.starts_with(mail), "a message confirms what its sender was not shown")?;
    let outcome = run_all(tables, mail.iter().flat_map(read_elsewhere).collect())?;
    ensure(outcome.tables.proved == tables.proved, "an inbox or channel is proved by a message that was read elsewhere")?;
    pushed(world)?;
    answered_inside(world)
}

/// A message that a trusted inbox or channel was given waits no more.
fn pushed(world: &World) -> Result<(), String> {
    if world.agent.is_gone || world.registered.is_none_or(|(_, agent)| agent != world.agent.number) {
        return Ok(());
    }
    let sent = run(&world.tables, &Operation::Send(draft("a", RECIPIENT)))?;
    let Answer::Number(seq) = sent.answer else { return Err("a message is refused".to_owned()) };
    for (route, is_trusted) in [(Route::Channel, true), (Route::Inbox, world.setup.door != Door::Hooked)] {
        let waits = !(is_trusted && promises::has_proved(world));
        let offered = run(&sent.tables, &acknowledge(RECIPIENT, route, seq, Became::Offered, None))?.tables;
        let is_right = |stored: &Stored| stored.seq != seq || stored.waiting == waits;
        ensure(offered.mail.iter().all(is_right), "a message waits though its route is trusted, or does not though it is not")?;
    }
    Ok(())
}

/// A command line inside the session gets the answer that it waits for, and the session does not, also if it is sent again. Its key then
/// belongs to an answer.
fn answered_inside(world: &World) -> Result<(), String> {
    let answer = Draft { reply_to: Some(1), for_cli_inside: true, ..draft("a", RECIPIENT) };
    let once = run(&world.tables, &Operation::Send(answer.clone()))?;
    let twice = run(&once.tables, &Operation::Send(Draft { for_cli_inside: false, ..answer }))?;
    let is_one = once.tables.mail == world.tables.mail && twice.tables == once.tables && twice.answer == once.answer;
    ensure(is_one, "an answer for the command line reaches its session, or is accepted twice")?;
    let other = run(&once.tables, &Operation::Send(draft("a", RECIPIENT)))?;
    ensure(other.answer == Answer::Refused, "the key of an answer stands for another message")
}

/// Takes.
fn taken(world: &World) -> Result<(), String> {
    let overtaking = world.tables.mail.iter().filter(|stored| is_taken(stored)).find_map(|stored| overtakes(world, stored.seq));
    ensure(overtaking.is_none(), "a message is taken before an earlier one that another call has")?;
    let mut outdated = take(world, Taking::Check, "other");
    if let Operation::Lease { is_outdated, .. } = &mut outdated {
        *is_outdated = true;
    }
    let outdated = run(&world.tables, &outdated)?;
    let gets_nothing = outdated.tables == world.tables && outdated.answer == Answer::Mail(Vec::new());
    ensure(gets_nothing, "a request that a newer one replaces gets messages")?;
    let others = Operation::Lease {
        instance: "a".to_owned(),
        lease: Some("other".to_owned()),
        route: Taking::Check,
        is_outdated: false,
        limit: Limit::None,
    };
    let gets_nothing = run(&world.tables, &others)?.answer == Answer::Mail(Vec::new());
    ensure(gets_nothing, "a process that serves another peer gets messages")?;
    let all = run(&world.tables, &take(world, Taking::Check, "other"))?;
    let result = run(&world.tables, &take(world, Taking::Result, "other"))?;
    let (Answer::Mail(all), Answer::Mail(result)) = (all.answer, result.answer) else { unreachable!("a take answers with mail") };
    let is_announced = |given: &Given| world.tables.mail.iter().any(|stored| stored.seq == given.seq && stored.is_announced);
    let whole: Vec<Given> = all.iter().filter(|given| !is_announced(given)).cloned().collect();
    ensure(whole == result, "a result does not show all messages but those whose beginning was shown")?;
    for limit in [Limit::Message, Limit::Size] {
        let first = run(&world.tables, &limited(world, Taking::Check, "other", limit))?.answer;
        ensure(first == Answer::Mail(all.iter().take(1).cloned().collect()), "a take for one message gets others")?;
    }
    Ok(())
}

fn acknowledge(peer: &'static str, route: Route, seq: i64, outcome: Became, lease: Option<&str>) -> Operation {
    Operation::Acknowledge { peer, route, messages: vec![(seq, outcome, lease.map(str::to_owned))] }
}

/// Acknowledgements by another peer, under a guessed id, of another holder, or of none.
fn idle(stored: &Stored) -> Vec<Operation> {
    let (seq, outcomes) = (stored.seq, [Became::Offered, Became::Announced, Became::Delivered, Became::Released]);
    let mut idle = vec![Operation::Release(seq + GUESSED)];
    for (route, outcome) in ROUTES.into_iter().flat_map(|route| outcomes.map(|outcome| (route, outcome))) {
        idle.push(acknowledge("a", route, seq, outcome, None));
        idle.push(acknowledge(RECIPIENT, route, seq + GUESSED, outcome, None));
    }
    for outcome in [Became::Announced, Became::Released] {
        let lease = stored.holder.as_ref().map(|(_, lease)| lease.is_some());
        idle.push(acknowledge(RECIPIENT, Route::CheckMessages, seq, outcome, Some("another")));
        let others = ROUTES.into_iter().filter(|route| lease != Some(*route != Route::Channel));
        idle.extend(others.map(|route| acknowledge(RECIPIENT, route, seq, outcome, None)));
    }
    if stored.state > 0 && stored.holder.is_none() {
        idle.extend([Route::Inbox, Route::Channel].map(|route| acknowledge(RECIPIENT, route, seq, Became::Offered, None)));
    }
    if stored.state == 1 {
        idle.push(acknowledge(RECIPIENT, Route::Channel, seq, Became::Offered, None));
    }
    if stored.state == 2 {
        idle.push(acknowledge(RECIPIENT, Route::CheckMessages, seq, Became::Delivered, None));
    }
    if !stored.held || stored.state > 1 {
        idle.push(Operation::Release(seq));
    }
    if !stored.held {
        idle.push(Operation::Posted(vec![seq]));
    }
    idle
}

fn is_taken(stored: &Stored) -> bool {
    stored.holder.as_ref().is_some_and(|(_, lease)| lease.is_some())
}

/// A client need not name the lease of what it gives back or announces, and may give back what its stream has pushed.
fn given_back(tables: &Tables, stored: &Stored) -> Result<(), String> {
    let Some((_, lease)) = &stored.holder else { return Ok(()) };
    let route = if lease.is_some() { Route::CheckMessages } else { Route::Channel };
    for outcome in [Became::Released, Became::Announced] {
        let after = run(tables, &acknowledge(RECIPIENT, route, stored.seq, outcome, None))?.tables;
        let is_free = |new: &Stored| new.seq != stored.seq || new.holder.is_none();
        ensure(after.mail.iter().all(is_free), "a message is given back without the name of its lease, and stays leased")?;
    }
    Ok(())
}

/// A fresh message that another call takes after `seq` was given back, though somebody still has an earlier one.
fn overtakes(world: &World, seq: i64) -> Option<i64> {
    let tables = world.tables.run(&acknowledge(RECIPIENT, Route::CheckMessages, seq, Became::Released, None)).tables;
    let is_fresh = |stored: &&Stored| stored.state == 0 && stored.holder.is_some();
    let earliest = tables.mail.iter().find(is_fresh)?.seq;
    let taken = tables.run(&take(world, Taking::Check, "other")).answer;
    let Answer::Mail(taken) = taken else { return None };
    let later = |seq: i64| seq > earliest && tables.mail.iter().any(|stored| stored.seq == seq && stored.state == 0);
    taken.into_iter().map(|given| given.seq).find(|seq| later(*seq))
}

/// A take by the process that serves the session.
fn take(world: &World, route: Taking, lease: &str) -> Operation {
    limited(world, route, lease, Limit::None)
}

fn limited(world: &World, route: Taking, lease: &str, limit: Limit) -> Operation {
    let server = world.registered.map_or(0, |(server, _)| server);
    Operation::Lease { instance: instance(server), lease: Some(lease.to_owned()), route, is_outdated: false, limit }
}

/// Reports of the hook under a guessed id, of another peer, and for a message that was never handed over.
fn unknown_prompts(stored: &Stored) -> Vec<Operation> {
    let seqs = [Some(stored.seq + GUESSED), (stored.handed == 0 && stored.state == 0).then_some(stored.seq)];
    let own = seqs.into_iter().flatten().map(|seq| Operation::Prompt { peer: RECIPIENT, messages: vec![seq] });
    own.chain([Operation::Prompt { peer: "a", messages: vec![stored.seq] }]).collect()
}

/// The session reads a message at the command line, and then names it.
fn read_elsewhere(stored: &Stored) -> Vec<Operation> {
    let key = format!("read{}", stored.seq);
    let named = Draft { reply_to: Some(stored.seq), ..Draft::new(RECIPIENT, "a", &key) };
    vec![Operation::ReadByUser(stored.seq), Operation::Send(named)]
}

fn draft(from: &str, to: &str) -> Draft {
    Draft::new(from, to, "new")
}

/// Messages that are refused.
fn refused(world: &World) -> Vec<Draft> {
    let question = |reply_to, draft| Draft { reply_to: Some(reply_to), ..draft };
    let mut refused = vec![
        draft("stranger", RECIPIENT),
        draft("a", "stranger"),
        question(1, draft(RECIPIENT, "cli")),
        question(1, draft(LASTING, RECIPIENT)),
        question(1 + GUESSED, draft("a", RECIPIENT)),
        question(77, draft("a", RECIPIENT)),
        Draft { text: "another", key: "question".to_owned(), ..draft(RECIPIENT, "a") },
        Draft { key: "question".to_owned(), ..draft(RECIPIENT, BYPASSING) },
    ];
    let waiting = world.tables.mail.iter().filter(|stored| stored.waiting).count();
    let most_waiting = u32::try_from(waiting).unwrap_or_default();
    refused.extend((waiting > 0).then(|| Draft { most_waiting, ..draft("a", RECIPIENT) }));
    refused
}

/// Messages that are accepted.
fn accepted(world: &World) -> Vec<Draft> {
    let waiting = world.tables.mail.iter().filter(|stored| stored.waiting).count();
    let most_waiting = u32::try_from(waiting).unwrap_or_default() + 1;
    let named = Draft { reply_to: Some(1), ..draft("cli", RECIPIENT) };
    vec![Draft { most_waiting, ..draft("a", RECIPIENT) }, Draft { reply_to: Some(1), ..draft(RECIPIENT, "a") }, named]
}

/// A message does not confirm what its sender has sent itself, nor a question that the broker has guessed. (To a peer whose pushed messages
/// wait for a confirmation, any message confirms those.)
fn confirming_nothing(world: &World, stored: &Stored) -> Vec<Draft> {
    let from = world.fates.get(&stored.seq).map(|fate| fate.letter.from).filter(|from| ["a", LASTING].contains(from));
    let named = |from: &str, to: &str, names| Draft {
        reply_to: Some(stored.seq),
        key: format!("new{}", stored.seq),
        names,
        ..draft(from, to)
    };
    let is_silent = world.fates.values().all(|fate| fate.letter.from != BYPASSING);
    let guessed = is_silent.then(|| named(RECIPIENT, BYPASSING, false));
    from.map(|from| [named(from, RECIPIENT, true)].into_iter().chain(guessed).collect()).unwrap_or_default()
}

/// What nobody has been shown moves to another peer, and only that; whoever gets it looks for it.
fn moved(world: &World) -> Result<(), String> {
    let left = run(&world.tables, &Operation::Move { from: RECIPIENT, to: BYPASSING })?;
    let is_new = |stored: &&Stored| stored.state == 0 && stored.waiting && stored.holder.is_none();
    let stays = left.tables.mail.iter().eq(world.tables.mail.iter().filter(|stored| !is_new(stored)));
    ensure(stays, "other messages move to another peer than those that nobody was shown")?;
    let (sent, comes) = (Operation::Send(draft("a", BYPASSING)), Operation::Move { from: BYPASSING, to: RECIPIENT });
    let came = run_all(&world.tables, vec![sent, comes])?;
    ensure(came.tables.mail.len() > world.tables.mail.len(), "no message moves to another peer")
}

/// What hooks hold waits again at the end of a turn, and nothing else. It counts as shown.
fn hooked(world: &World) -> Result<(), String> {
    let taken = run(&world.tables, &take(world, Taking::Check, &format!("{HOOK_LEASE}1")))?;
    let ended = run(&taken.tables, &Operation::EndHooks)?;
    let is_right = |((old, new), taken): ((&Stored, &Stored), &Stored)| new.holder == old.holder && new.handed == taken.handed;
    let is_kept = world.tables.mail.iter().zip(&ended.tables.mail).zip(&taken.tables.mail).all(is_right);
    ensure(is_kept, "the end of a turn ends other leases than those of hooks")
}

/// A poll gives neither held messages nor those that another route hands over. The next poll delivers what it gave, and no more.
fn polled(world: &World) -> Result<(), String> {
    let first = run(&world.tables, &Operation::Poll)?;
    let Answer::Mail(given) = &first.answer else { unreachable!("a poll answers with mail") };
    let is_free = |stored: &Stored| stored.waiting && !stored.held && stored.holder.is_none();
    let is_given = |stored: &Stored| given.iter().any(|given| given.seq == stored.seq);
    let second = run(&first.tables, &Operation::Poll)?.tables;
    let is_right = |(old, new): (&Stored, &Stored)| match is_free(old) {
        true => is_given(old) && new.state == 2 && new.handed == old.handed + 1,
        false => !is_given(old) && (new.state == old.state || world.setup.door == Door::Legacy),
    };
    let is_kept = world.tables.mail.iter().zip(&second.mail).all(is_right);
    ensure(is_kept, "a poll gives other messages than the free ones, or the next does not deliver them")
}

/// What has expired does not expire again.
fn expired(world: &World) -> Result<(), String> {
    let first = run(&world.tables, &Operation::Expire)?;
    let second = run(&first.tables, &Operation::Expire)?;
    ensure(second.answer == Answer::Yes(true) && second.tables == first.tables, "the time of the next expiry is wrong")
}
