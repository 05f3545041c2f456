//! Removing, purging and reinstalling the package leaves nothing of the service behind and keeps the user's data.

use crate::{
    Test,
    machine::{Machine, eventually},
    prepare::{Prepared, Release},
};

pub const TESTS: &[(&str, Test)] = &[("remove::removal_leaves_only_the_mail", removal_leaves_only_the_mail)];

fn removal_leaves_only_the_mail(prepared: &Prepared) {
    for release in [Release::Bookworm, Release::Trixie] {
        for purge in [false, true] {
            let machine = Machine::boot(prepared, release);
            let has_claude = machine.give_claude(prepared, "ada");
            machine.install(&prepared.package).ok();
            let registered = || machine.ada("cat ~/.claude.json 2>/dev/null").out.contains("claude-peers-mcp");
            if has_claude {
                eventually("the package has registered its server", || registered().then_some(()));
            }
            let (mut a, mut b) = (machine.session("ada", "session-a"), machine.session("ada", "session-b"));
            let b_id = b.id();
            b.close();
            a.send(&b_id, "Read this when I am back");
            a.close();

            machine.root(if purge { "dpkg --purge claude-peers" } else { "dpkg --remove claude-peers" }).ok();
            assert!(!registered(), "{}", machine.ada("cat ~/.claude.json").out);
            for user in ["ada", "bob"] {
                let units = machine.run(user, "systemctl --user list-units --all --plain --no-legend 'claude*'").ok();
                assert_eq!(units, "", "{user}");
                assert_eq!(machine.run(user, "systemctl --user --failed --plain --no-legend").ok(), "", "{user}");
            }
            assert_eq!(machine.root("pgrep -a claude-peers").out, "");
            let left = "find / -xdev -name '*claude*peers*' -not -path '/opt/*' -not -path '/proc/*'";
            let left = machine.root(left).out;
            let left: Vec<_> =
                left.lines().filter(|path| !path.starts_with("/home/") && !path.starts_with("/var/lib/dpkg/info")).collect();
            assert_eq!(left, [] as [&str; 0], "purged: {purge}");

            machine.install(&prepared.package).ok();
            if has_claude {
                eventually("it is registered again", || registered().then_some(()));
            }
            let mut b = machine.session("ada", "session-b");
            assert_eq!(b.pushed()["content"], "Read this when I am back");
        }
    }
}
