//! The feature for development containers installs the package into an image and starts the broker without systemd.

use crate::{
    Test,
    apt::{AS_FILES, Keys, NO_OTHER},
    machine::Machine,
    prepare::{Prepared, Release},
};
use serde_json::Value;
use std::{fs, path::Path};

pub const TESTS: &[(&str, Test)] =
    &[("container::feature_installs_and_starts_the_broker", feature_installs_and_starts_the_broker)];

/// The feature's folder.
fn feature() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/oci/claude-peers"))
}

/// An image that has the feature's script and knows no other repository.
fn image(prepared: &Prepared, release: Release) -> Machine {
    let image = Machine::switched_off(prepared, release);
    fs::copy(feature().join("install.sh"), image.path("/srv/install.sh")).unwrap();
    fs::copy(&prepared.package, image.path("/srv/claude-peers.deb")).unwrap();
    image
}

fn feature_installs_and_starts_the_broker(prepared: &Prepared) {
    let text = fs::read_to_string(feature().join("devcontainer-feature.json")).unwrap();
    let feature: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(feature["id"], "claude-peers", "as its folder is named");
    let (create, start) = (feature["postCreateCommand"].as_str().unwrap(), feature["postStartCommand"].as_str().unwrap());
    // The commands run as the user of the container, once and at each start.
    let lived = format!(
        "set -e; {NO_OTHER}; \"$@\" >/dev/null
         cat >/srv/life <<'END'
         set -e; cd; {create} >&2; {start}; claude-peers stop >&2; {start}; claude-peers status
END
         setpriv --reuid=ada --regid=ada --init-groups env HOME=/home/ada USER=ada PATH=/usr/bin:/bin sh /srv/life"
    );
    let keys = Keys::new();
    for (release, options) in [
        (Release::Bookworm, format!("REPOSITORY={AS_FILES} VERSION={}", env!("CARGO_PKG_VERSION"))),
        (Release::Trixie, "PACKAGE=/srv/claude-peers.deb".to_owned()),
    ] {
        let image = image(prepared, release);
        keys.publish(AS_FILES, "ours", &image, &prepared.package);
        let missing = image.in_container("PACKAGE=/srv/none.deb sh /srv/install.sh");
        assert!(missing.code == 1 && missing.err.contains("no package /srv/none.deb"), "{missing:?}");
        let said = image.in_container(&format!("set -- env {options} sh /srv/install.sh; {lived}")).ok();
        let told: Vec<_> = said.lines().filter(|line| line.starts_with("The broker ")).collect();
        assert!(
            told[0].starts_with("The broker runs already") && told[1].starts_with("The broker runs in the background"),
            "{said}"
        );
        assert!(said.contains("running, version"), "{said}");
    }
}
