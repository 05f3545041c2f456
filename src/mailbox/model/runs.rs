//! Single runs, longer than all interleavings could be.

use super::{
    exhaustive::{A, LONG, setup},
    operation::{BYPASSING, Taking},
    promises, requests, rest,
    steps::Step,
    world::{Door, Letter, Setup, Slot, World},
};
use crate::wire::InboundRule;

/// The inbox gets what waits, and the broker hears of it.
const WRITTEN: [Step; 4] =
    [Step::Ask(0, Slot::Door), Step::Hear(0, Slot::Door), Step::Write(0, Slot::Door), Step::Acknowledge(0)];
const TAKE: Step = Step::Call { server: 0, route: Taking::Result, waits: false };

fn keeps_promises(setup: Setup, steps: &[Step]) {
    let mut world = World::new(setup);
    for step in steps {
        assert!(world.enabled().contains(step), "{step:?} cannot happen");
        world = world.next(*step);
        assert_eq!(promises::broken(&world), None, "after {step:?}");
    }
    assert_eq!(rest::broken(&world).or_else(|| requests::broken(&world)), None);
}

#[test]
fn dead_channel_proves_nothing() {
    let steps = [
        Step::KillAgent,
        Step::Resume { is_live: false },
        Step::Start,
        Step::Register(1),
        Step::Send { pushed: true },
        Step::Push,
        Step::Acknowledge(1),
        Step::Call { server: 1, route: Taking::Check, waits: false },
        Step::Hear(1, Slot::Call),
        Step::Register(2),
        Step::Write(1, Slot::Call),
        Step::Reply { names: Some(3) },
    ];
    for letter in [A, LONG] {
        keeps_promises(Setup { replies: 1, servers: 3, ..setup(Door::Channel, &[letter]) }, &steps);
    }
}

#[test]
fn beginning_in_result_proves_nothing() {
    let steps = [
        Step::KillAgent,
        Step::Resume { is_live: false },
        Step::Register(1),
        Step::Control { inbound: InboundRule::Hold, bypasses: false },
        Step::Send { pushed: false },
        Step::Release(3),
        Step::Call { server: 1, route: Taking::Result, waits: false },
        Step::Hear(1, Slot::Call),
        Step::Write(1, Slot::Call),
        Step::Acknowledge(1),
        Step::Reply { names: Some(3) },
    ];
    keeps_promises(Setup { replies: 1, controls: 2, ..setup(Door::Channel, &[LONG]) }, &steps);
}

#[test]
fn beginning_in_inbox_proves_it() {
    let steps = [&[Step::Send { pushed: false }], &WRITTEN[..], &[Step::Show, Step::Reply { names: Some(3) }]].concat();
    keeps_promises(Setup { replies: 1, ..setup(Door::Bare, &[LONG]) }, &steps);
}

#[test]
fn cancelled_call_gives_nothing_back_to_proved_channel() {
    let steps = [
        Step::Send { pushed: true },
        Step::Push,
        Step::Show,
        Step::Acknowledge(0),
        Step::Send { pushed: true },
        Step::Push,
        Step::Show,
        Step::Call { server: 0, route: Taking::Check, waits: false },
        Step::Reply { names: Some(4) },
        Step::Cancel(0),
    ];
    keeps_promises(Setup { replies: 1, ..setup(Door::Channel, &[A, A]) }, &steps);
}

#[test]
fn acknowledgement_tells_of_later_messages() {
    let steps = [
        Step::Send { pushed: false },
        TAKE,
        Step::Hear(0, Slot::Call),
        Step::Send { pushed: false },
        Step::Push,
        Step::Write(0, Slot::Call),
        TAKE,
        Step::Acknowledge(0),
        Step::Push,
    ];
    keeps_promises(setup(Door::None, &[A, A]), &steps);
}

#[test]
fn inbox_that_is_given_up_leaves_messages_to_calls() {
    let frame = [&WRITTEN[..], &[Step::Acknowledged(0), Step::Push, TAKE, Step::Lose, Step::Miss]].concat();
    let steps = [&[Step::Send { pushed: false }], &frame[..], &frame, &frame, &[Step::Push]].concat();
    keeps_promises(Setup { faults: 3, ..setup(Door::Hooked, &[A]) }, &steps);
}

/// A channel proves itself.
const PROOF: [Step; 6] = [
    Step::Send { pushed: true },
    Step::Push,
    Step::Show,
    Step::Acknowledge(0),
    Step::Acknowledged(0),
    Step::Reply { names: Some(3) },
];

#[test]
fn unread_messages_wait_again_after_their_process() {
    let pushed = [Step::Send { pushed: true }, Step::Push, Step::Acknowledge(0)];
    for end in [Step::KillAgent, Step::Leave] {
        let steps = [&PROOF[..], &pushed, &[end]].concat();
        keeps_promises(Setup { replies: 1, ..setup(Door::Channel, &[A, A]) }, &steps);
    }
}

#[test]
fn reconnecting_process_keeps_what_it_was_given() {
    let pushed = [Step::Send { pushed: true }, Step::Push, Step::Acknowledge(0)];
    let steps = [&PROOF[..], &pushed, &[Step::Disconnect(0), Step::Register(0), Step::Show]].concat();
    keeps_promises(Setup { replies: 1, ..setup(Door::Channel, &[A, A]) }, &steps);
}

#[test]
fn proof_leaves_messages_of_the_earlier_process() {
    let steps = [
        Step::Send { pushed: true },
        Step::Push,
        Step::Acknowledge(0),
        Step::KillAgent,
        Step::Resume { is_live: true },
        Step::Register(1),
        Step::Send { pushed: true },
        Step::Push,
        Step::Show,
        Step::Reply { names: Some(4) },
    ];
    keeps_promises(Setup { replies: 1, ..setup(Door::Channel, &[A, A]) }, &steps);
}

#[test]
fn any_reply_confirms_what_its_recipient_has_sent() {
    const B: Letter = Letter { from: "b", ..A };
    let pushed = [Step::Send { pushed: true }, Step::Push, Step::Show, Step::Acknowledge(0), Step::Acknowledged(0)];
    let steps = [&PROOF[..], &pushed, &pushed, &[Step::Reply { names: None }, Step::Reply { names: Some(6) }]].concat();
    keeps_promises(Setup { replies: 3, ..setup(Door::Channel, &[A, A, B]) }, &steps);
}

#[test]
fn any_reply_confirms_what_is_in_the_inbox() {
    let written = [&[Step::Send { pushed: false }], &WRITTEN[..], &[Step::Acknowledged(0), Step::Show]].concat();
    let replies = [Step::Reply { names: Some(3) }, Step::Reply { names: None }].map(|reply| [reply]);
    let steps = [&written[..], &replies[0], &written, &replies[1]].concat();
    keeps_promises(Setup { replies: 2, ..setup(Door::Bare, &[A, A]) }, &steps);
}

#[test]
fn inbox_still_waits_for_what_a_call_has_shown() {
    let steps = [
        Step::Send { pushed: false },
        Step::Ask(0, Slot::Door),
        Step::Hear(0, Slot::Door),
        Step::Start,
        Step::Register(1),
        Step::Register(0),
        Step::Call { server: 0, route: Taking::Check, waits: false },
        Step::Hear(0, Slot::Call),
        Step::Write(0, Slot::Door),
        Step::Write(0, Slot::Call),
        Step::Acknowledge(0),
        Step::Acknowledged(0),
        Step::Acknowledge(0),
        Step::Show,
        Step::Reply { names: Some(3) },
    ];
    keeps_promises(Setup { replies: 1, ..setup(Door::Bare, &[A]) }, &steps);
}

#[test]
fn released_message_is_told_of() {
    let steps = [
        Step::Control { inbound: InboundRule::Hold, bypasses: false },
        Step::Send { pushed: false },
        Step::Push,
        TAKE,
        Step::Release(3),
        Step::Push,
    ];
    keeps_promises(Setup { controls: 2, ..setup(Door::None, &[A]) }, &steps);
}

#[test]
fn beginning_of_held_message_is_let_in() {
    let controls = [InboundRule::Hold, InboundRule::Match].map(|inbound| Step::Control { inbound, bypasses: false });
    let noted = [Step::Send { pushed: false }, Step::Post { is_noted: true }, Step::LetIn];
    let not_noted = [Step::Send { pushed: false }, Step::Post { is_noted: false }, Step::Register(0), Step::LetIn];
    let runs = [
        [&noted[..], &[Step::Hook], &controls].concat(),
        [&not_noted[..], &[Step::Hook]].concat(),
        [&noted[..], &[Step::Expire, Step::Hook]].concat(),
    ];
    let letter = Letter { from: BYPASSING, ..LONG };
    for steps in runs {
        keeps_promises(Setup { controls: 2, expires: true, ..setup(Door::Hooked, &[letter]) }, &steps);
    }
}

#[test]
fn user_is_not_asked_about_what_is_released() {
    let letter = Letter { from: BYPASSING, ..A };
    let send = Step::Send { pushed: false };
    let steps = [send, send, Step::Release(3), Step::Post { is_noted: true }];
    keeps_promises(Setup { controls: 1, ..setup(Door::Hooked, &[letter, letter]) }, &steps);
}

#[test]
fn user_is_asked_once() {
    let steps = [
        Step::Send { pushed: false },
        Step::Post { is_noted: true },
        Step::Control { inbound: InboundRule::Hold, bypasses: false },
        Step::Post { is_noted: true },
        Step::Control { inbound: InboundRule::Match, bypasses: false },
        Step::Post { is_noted: true },
    ];
    keeps_promises(Setup { controls: 2, ..setup(Door::Hooked, &[Letter { from: BYPASSING, ..A }]) }, &steps);
}

#[test]
fn reply_before_the_report_leaves_other_messages_to_their_own() {
    let reply = [Step::Show, Step::Lose, Step::Reply { names: Some(3) }];
    let steps = [&[Step::Send { pushed: false }; 2], &WRITTEN[..], &reply].concat();
    keeps_promises(Setup { replies: 1, ..setup(Door::Hooked, &[A, A]) }, &steps);
}

#[test]
fn inbox_does_not_wait_for_a_frame_that_failed() {
    let door = [Step::Ask(0, Slot::Door), Step::Hear(0, Slot::Door), Step::Fail(0, Slot::Door), Step::Acknowledge(0)];
    let steps = [&[Step::Send { pushed: false }], &door[..]].concat();
    keeps_promises(setup(Door::Hooked, &[A]), &steps);
}
