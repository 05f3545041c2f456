//! Requests that no client should send, or sends too late. In every state they change nothing. And some that clients of other kinds send,
//! which change only what they should.

use super::{
    operation::{Answer, BYPASSING, Draft, GUESSED, LASTING, Operation, RECIPIENT, Taking},
    tables::Stored,
    world::{Door, World, instance},
};
use crate::wire::{HOOK_LEASE, Outcome, Route};

/// The routes of a stream and of a take.
const ROUTES: [Route; 2] = [Route::Channel, Route::CheckMessages];

/// The first group of these requests that changes something, or is not answered as it should be.
pub fn broken(world: &World) -> Option<String> {
    let (tables, mail) = (&world.tables, &world.tables.mail);
    let run = |operations: Vec<Operation>| tables.run(&Operation::All(operations));
    let sent = |drafts: Vec<Draft>| run(drafts.into_iter().map(Operation::Send).collect());
    if run(mail.iter().flat_map(idle).collect()).tables != *tables {
        return Some("an acknowledgement or release without an object changes something".to_owned());
    }
    // Any report of the hook proves the inbox, but nothing else.
    if run(mail.iter().flat_map(unknown_prompts).collect()).tables.mail != *mail {
        return Some("the hook's report of an unknown message changes something".to_owned());
    }
    let outcome = sent(refused(world));
    if outcome.answer != Answer::Number(0) || outcome.tables != *tables {
        return Some("a message is accepted that must be refused".to_owned());
    }
    let outcome = sent(vec![Draft { stream: Some("another".to_owned()), ..draft("a", RECIPIENT) }]);
    if outcome.tables.mail.iter().any(|stored| stored.holder.as_ref().is_some_and(|(instance, _)| instance == "another")) {
        return Some("a message is pushed to a process that does not serve the session".to_owned());
    }
    if let Some(seq) = mail.iter().filter(|stored| is_taken(stored)).map(|stored| stored.seq).find(|seq| !is_obeyed(world, *seq))
    {
        return Some(format!("message {seq} is given back without the name of its lease, and stays leased"));
    }
    let drafts = accepted(world);
    let (number, outcome) = (drafts.len(), sent(drafts));
    if outcome.answer != Answer::Number(i64::try_from(number).unwrap()) {
        return Some(format!("only {:?} of {number} messages are accepted", outcome.answer));
    }
    if outcome.tables.proved != tables.proved {
        return Some("a channel is proved by a message that was pushed into another".to_owned());
    }
    if let Some(seq) = mail.iter().filter(|stored| is_taken(stored)).find_map(|stored| overtakes(world, stored.seq)) {
        return Some(format!("message {seq} is taken before an earlier one that another call has"));
    }
    if serves_outdated(world) {
        return Some("a request that a newer one replaces gets messages".to_owned());
    }
    let outcome = sent(mail.iter().flat_map(|stored| confirming_nothing(world, stored)).collect());
    if !outcome.tables.mail.starts_with(mail) {
        return Some("a message confirms what its sender was not shown".to_owned());
    }
    moved(world).or_else(|| hooked(world)).or_else(|| polled(world))
}

fn acknowledge(peer: &'static str, route: Route, seq: i64, outcome: Outcome, lease: Option<&str>) -> Operation {
    Operation::Acknowledge { peer, route, messages: vec![(seq, outcome, lease.map(str::to_owned))] }
}

/// Acknowledgements by another peer, under a guessed id, of another holder, or of none.
fn idle(stored: &Stored) -> Vec<Operation> {
    let (seq, outcomes) = (stored.seq, [Outcome::Offered, Outcome::Announced, Outcome::Delivered, Outcome::Released]);
    let mut idle = vec![Operation::Release(seq + GUESSED)];
    for (route, outcome) in ROUTES.into_iter().flat_map(|route| outcomes.map(|outcome| (route, outcome))) {
        idle.push(acknowledge("a", route, seq, outcome, None));
        idle.push(acknowledge(RECIPIENT, route, seq + GUESSED, outcome, None));
    }
    for outcome in [Outcome::Announced, Outcome::Released] {
        let lease = stored.holder.as_ref().map(|(_, lease)| lease.is_some());
        idle.push(acknowledge(RECIPIENT, Route::CheckMessages, seq, outcome, Some("another")));
        let others = ROUTES.into_iter().filter(|route| lease != Some(*route != Route::Channel));
        idle.extend(others.map(|route| acknowledge(RECIPIENT, route, seq, outcome, None)));
    }
    if stored.state > 0 && stored.holder.is_none() {
        idle.extend([Route::Inbox, Route::Channel].map(|route| acknowledge(RECIPIENT, route, seq, Outcome::Offered, None)));
    }
    if stored.state == 1 {
        idle.push(acknowledge(RECIPIENT, Route::Channel, seq, Outcome::Offered, None));
    }
    if stored.state == 2 {
        idle.push(acknowledge(RECIPIENT, Route::CheckMessages, seq, Outcome::Delivered, None));
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

/// A client need not name the lease of what it gives back or announces.
fn is_obeyed(world: &World, seq: i64) -> bool {
    [Outcome::Released, Outcome::Announced].into_iter().all(|outcome| {
        let tables = world.tables.run(&acknowledge(RECIPIENT, Route::CheckMessages, seq, outcome, None)).tables;
        tables.mail.iter().all(|stored| stored.seq != seq || stored.holder.is_none())
    })
}

/// A fresh message that another call takes after `seq` was given back, though somebody still has an earlier one.
fn overtakes(world: &World, seq: i64) -> Option<i64> {
    let tables = world.tables.run(&acknowledge(RECIPIENT, Route::CheckMessages, seq, Outcome::Released, None)).tables;
    let is_fresh = |stored: &&Stored| stored.state == 0 && stored.holder.is_some();
    let earliest = tables.mail.iter().find(is_fresh)?.seq;
    let taken = tables.run(&take(world, "other", false)).answer;
    let Answer::Mail(taken) = taken else { return None };
    let later = |seq: i64| seq > earliest && tables.mail.iter().any(|stored| stored.seq == seq && stored.state == 0);
    taken.into_iter().map(|given| given.seq).find(|seq| later(*seq))
}

/// A take by the process that serves the session.
fn take(world: &World, lease: &str, is_outdated: bool) -> Operation {
    let server = world.registered.map_or(0, |(server, _)| server);
    Operation::Lease { instance: instance(server), lease: Some(lease.to_owned()), route: Taking::Check, is_outdated }
}

/// Whether a take gets messages that a newer one under the same lease replaces.
fn serves_outdated(world: &World) -> bool {
    let outcome = world.tables.run(&take(world, "other", true));
    outcome.tables != world.tables || outcome.answer != Answer::Mail(Vec::new())
}

/// Reports of the hook under a guessed id, and for a message that was never handed over.
fn unknown_prompts(stored: &Stored) -> Vec<Operation> {
    let is_new = stored.handed == 0 && !stored.held && stored.state == 0;
    let seqs = [Some(stored.seq + GUESSED), is_new.then_some(stored.seq)];
    seqs.into_iter().flatten().map(|seq| Operation::Prompt(vec![seq])).collect()
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
fn moved(world: &World) -> Option<String> {
    let left = world.tables.run(&Operation::Move { from: RECIPIENT, to: BYPASSING });
    let is_new = |stored: &&Stored| stored.state == 0 && stored.waiting && stored.holder.is_none();
    if !left.tables.mail.iter().eq(world.tables.mail.iter().filter(|stored| !is_new(stored))) {
        return Some("other messages move to another peer than those that nobody was shown".to_owned());
    }
    let (sent, comes) = (Operation::Send(draft("a", BYPASSING)), Operation::Move { from: BYPASSING, to: RECIPIENT });
    let came = world.tables.run(&Operation::All(vec![sent, comes]));
    let has_come = came.tables.mail.len() > world.tables.mail.len();
    left.wrong.or(came.wrong).or_else(|| (!has_come).then(|| "no message moves to another peer".to_owned()))
}

/// What hooks hold waits again at the end of a turn, and nothing else. It counts as shown.
fn hooked(world: &World) -> Option<String> {
    let taken = world.tables.run(&take(world, &format!("{HOOK_LEASE}1"), false));
    let ended = taken.tables.run(&Operation::EndHooks);
    let is_right = |((old, new), taken): ((&Stored, &Stored), &Stored)| new.holder == old.holder && new.handed == taken.handed;
    let is_wrong = !world.tables.mail.iter().zip(&ended.tables.mail).zip(&taken.tables.mail).all(is_right);
    ended.wrong.or_else(|| is_wrong.then(|| "the end of a turn ends other leases than those of hooks".to_owned()))
}

/// A poll gives neither held messages nor those that another route hands over. The next poll delivers what it gave, and no more.
fn polled(world: &World) -> Option<String> {
    let first = world.tables.run(&Operation::Poll);
    let Answer::Mail(given) = &first.answer else { return Some("a poll gives no mail".to_owned()) };
    let is_free = |stored: &Stored| stored.waiting && !stored.held && stored.holder.is_none();
    let is_given = |stored: &Stored| given.iter().any(|given| given.seq == stored.seq);
    let second = first.tables.run(&Operation::Poll).tables;
    let is_right = |(old, new): (&Stored, &Stored)| match is_free(old) {
        true => is_given(old) && new.state == 2 && new.handed == old.handed + 1,
        false => !is_given(old) && (new.state == old.state || world.setup.door == Door::Legacy),
    };
    let is_wrong = !world.tables.mail.iter().zip(&second.mail).all(is_right);
    is_wrong.then(|| "a poll gives other messages than the free ones, or the next does not deliver them".to_owned())
}
