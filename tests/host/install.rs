//! Installing the package gives a service that sleeps until it is needed.

use crate::{
    Test,
    machine::Machine,
    prepare::{Prepared, Release},
};

pub const TESTS: &[(&str, Test)] = &[("install::a_machine_boots", a_machine_boots)];

fn a_machine_boots(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        let machine = Machine::boot(prepared, release);
        assert_eq!(machine.ada("systemctl --user is-system-running").ok().trim(), "running");
        assert_eq!(machine.bob("id -un; echo $HOME").ok(), "bob\n/home/bob\n");
    }
}
