//! Single runs, longer than all interleavings could be.

use super::{
    exhaustive::{A, LONG, setup},
    operation::Taking,
    promises, rest,
    steps::Step,
    world::{Door, Setup, Slot, World},
};

const TAKE: Step = Step::Call { server: 0, route: Taking::Result, waits: false };

fn keeps_promises(setup: Setup, steps: &[Step]) {
    let mut world = World::new(setup);
    for step in steps {
        assert!(world.enabled().contains(step), "{step:?} cannot happen");
        world = world.next(*step);
        assert_eq!(promises::broken(&world), None, "after {step:?}");
    }
    assert_eq!(rest::broken(&world), None);
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
    keeps_promises(Setup { replies: 1, servers: 3, ..setup(Door::Channel, &[A]) }, &steps);
}

#[test]
fn beginning_in_inbox_proves_it() {
    let steps = [
        Step::Send { pushed: false },
        Step::Ask(0, Slot::Door),
        Step::Hear(0, Slot::Door),
        Step::Write(0, Slot::Door),
        Step::Acknowledge(0),
        Step::Show,
        Step::Reply { names: Some(3) },
    ];
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
    let frame = [
        Step::Ask(0, Slot::Door),
        Step::Hear(0, Slot::Door),
        Step::Write(0, Slot::Door),
        Step::Acknowledge(0),
        Step::Acknowledged(0),
        Step::Push,
        TAKE,
        Step::Lose,
        Step::Miss,
    ];
    let steps = [&[Step::Send { pushed: false }], &frame[..], &frame, &frame, &[Step::Push]].concat();
    keeps_promises(Setup { faults: 3, ..setup(Door::Hooked, &[A]) }, &steps);
}
