//! Long random runs, with more messages, processes and faults than all interleavings could have. A failing run is shrunk.

use super::{
    promises, requests, rest,
    steps::Step,
    world::{Door, Letter, Setup, World},
};
use proptest::{prelude::*, sample::select, test_runner::RngSeed};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// The number of runs, unless `CLAUDE_PEERS_MODEL_RUNS` sets it, and the most steps of each.
const RUNS: u32 = 1_000;
const STEPS: usize = 60;

struct Runs;

fn letters() -> impl Strategy<Value = Vec<Letter>> {
    let letter = (select(vec!["a", "a", "a", "b", "c", "d", "cli"]), prop::bool::weighted(0.2), prop::bool::weighted(0.15));
    let letter =
        letter.prop_map(|(from, is_long, answers)| Letter { from, is_long, answers: answers && !["b", "d"].contains(&from) });
    prop::collection::vec(letter, 1..7)
}

fn setups() -> impl Strategy<Value = Setup> {
    let doors = select(vec![Door::Channel, Door::Channel, Door::Hooked, Door::Hooked, Door::Bare, Door::None, Door::Legacy]);
    (doors, letters(), 0_u8..5, 0_u8..4, 0_u8..4, any::<bool>()).prop_map(
        |(door, letters, faults, cancels, controls, expires)| {
            let controls = if door == Door::Legacy { 0 } else { controls };
            Setup { door, letters, servers: 3, agents: 3, faults, cancels, controls, replies: 3, expires }
        },
    )
}

impl ReferenceStateMachine for Runs {
    type State = World;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<World> {
        setups().prop_map(World::new).boxed()
    }

    fn transitions(world: &World) -> BoxedStrategy<Step> {
        let steps = world.enabled();
        // A run that has broken a promise goes on without an effect, and fails when it is checked.
        if steps.is_empty() { Just(Step::Nothing).boxed() } else { select(steps).boxed() }
    }

    fn apply(world: World, step: &Step) -> World {
        world.next(*step)
    }

    fn preconditions(world: &World, step: &Step) -> bool {
        *step == Step::Nothing || world.enabled().contains(step)
    }
}

impl StateMachineTest for Runs {
    type SystemUnderTest = ();
    type Reference = Self;

    fn init_test(_: &World) {}

    fn apply((): (), _: &World, _: Step) {}

    fn check_invariants((): &(), world: &World) {
        assert_eq!(promises::broken(world), None);
    }

    fn teardown((): (), world: World) {
        assert_eq!(rest::broken(&world).or_else(|| requests::broken(&world)), None);
    }
}

/// A number from the environment.
fn given<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seed of the runs, unless `CLAUDE_PEERS_TEST_SEED` sets it: a change fails only by its own fault. `just model` draws new ones.
const SEED: u64 = 1;

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: given("CLAUDE_PEERS_MODEL_RUNS").unwrap_or(RUNS),
        rng_seed: RngSeed::Fixed(given("CLAUDE_PEERS_TEST_SEED").unwrap_or(SEED)),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn long_runs_keep_the_promises(sequential 1..STEPS => Runs);
}
