//! The service on a Mac: the LaunchAgent's file, loaded into launchd.

use super::{
    files::{Change, Draft},
    step::Step,
};
use crate::{
    admin::{
        manager::{LABEL, Launchd, agent, log, socket},
        place::Place,
    },
    client::Client,
    console::Failure,
    platform::paths::DEFAULT_PORT,
    wire::{Hello, VERSION},
};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

fn path(place: &Place) -> PathBuf {
    place.home.join(format!("Library/LaunchAgents/{LABEL}.plist"))
}

fn draft(place: &Place, port: u16) -> Result<Draft, Failure> {
    Ok(Draft::xml(path(place), &agent(&place.bin, &place.home, port)?))
}

/// Installs and loads the agent; with `undo`, unloads and removes it.
pub async fn steps(place: &Place, launchd: &Launchd, undo: bool, port: Option<u16>) -> Result<Vec<Step>, Failure> {
    let path = path(place);
    let port = port.or_else(|| port_in(&path)).unwrap_or(DEFAULT_PORT);
    let mut change = Change::default();
    change.add([draft(place, port)?], !undo)?;
    if !change.in_the_way.is_empty() {
        return Ok(change.in_the_way);
    }
    let what = match undo {
        true => format!("unload and remove {}", path.display()),
        false => format!("write and load {}, for port {port}", path.display()),
    };
    let loaded = launchd.knows().await;
    if change.count() == 0 && loaded != undo {
        let renew = if undo { None } else { renew(socket(&place.home), launchd).await };
        return Ok([Step::already(what)].into_iter().chain(renew).collect());
    }
    let (launchd, place) = (launchd.clone(), place.clone());
    Ok(vec![Step::to_do(what, async move {
        if undo {
            if loaded {
                launchd.unload().await?;
            }
            return change.make(&place);
        }
        // launchd creates socket and log, but not their folders.
        for folder in [socket(&place.home), log(&place.home)].iter().filter_map(|file| file.parent()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| Failure::io("making", folder, &e, "give yourself the right to write there"))?;
        }
        change.make(&place)?;
        if loaded {
            launchd.unload().await?;
        }
        launchd.on(&["enable"]).run().await?;
        launchd.bootstrap(&path).run().await?;
        Ok(())
    })])
}

/// Restarts a broker of another version. Asking for the version starts a broker if none runs.
async fn renew(socket: PathBuf, launchd: &Launchd) -> Option<Step> {
    launchd.pid().await.ok()??;
    let hello: Hello = Client::new(socket, "claude-peers").hello().await.ok()?;
    let what = format!("restart the broker as version {VERSION} (it is {})", hello.version);
    (hello.version != VERSION).then(|| Step::calls(what, [Some(launchd.restart())]).named("broker"))
}

/// The port that the agent at `path` names.
fn port_in(path: &Path) -> Option<u16> {
    let agent = plist::Value::from_file(path).ok()?;
    let tcp = agent.as_dictionary()?.get("Sockets")?.as_dictionary()?.get("tcp")?;
    tcp.as_dictionary()?.get("SockServiceName")?.as_string()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::setup::{Found, found};
    use std::{fs, process::Command};

    #[test]
    fn agent_is_a_property_list_of_setup() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("al & <bob>");
        let place = Place { bin: home.join("bin"), package: None, home: home.clone() };
        let path = path(&place);
        let write = |port| {
            let mut change = Change::default();
            change.add([draft(&place, port)?], true)?;
            change.make(&place).map(|()| change.count())
        };
        assert_eq!(found(&path), Ok(Found::Nothing));
        assert_eq!([7899, 7900, 7900].map(write), [Ok(1), Ok(1), Ok(0)]);
        assert_eq!((port_in(&path), found(&path)), (Some(7900), Ok(Found::Ours)));
        let agent = plist::Value::from_file(&path).expect("a property list");
        let text = |keys: &[&str]| keys.iter().try_fold(&agent, |at, key| at.as_dictionary()?.get(key))?.as_string();
        assert_eq!(text(&["Program"]).map(PathBuf::from), Some(place.bin.join("claude-peersd")));
        assert_eq!(text(&["Sockets", "unix", "SockPathName"]).map(PathBuf::from), Some(socket(&home)));
        assert_eq!(text(&["StandardErrorPath"]).map(PathBuf::from), Some(log(&home)));
        // Parsers that stand in for Apple's.
        let binary = folder.path().join("agent.bin");
        let [xml, copy] = [&path, &binary].map(|path| path.to_string_lossy());
        for (parser, words) in
            [("xmllint", vec!["--noout", "--nonet", &xml]), ("plistutil", vec!["-f", "bin", "-i", &xml, "-o", &copy])]
        {
            match Command::new(parser).args(words).output() {
                Ok(judged) => assert!(judged.status.success(), "{judged:?}"),
                Err(_) => eprintln!("SKIPPED: {parser} (Debian's libxml2-utils, libplist-utils) is not installed"),
            }
        }
        if binary.exists() {
            assert_eq!(plist::Value::from_file(&binary).expect("a property list"), agent);
        }
        let content = fs::read_to_string(&path).expect("read");
        for (changed, is) in [(content.replace("7900", "80"), Found::Changed), ("<plist/>\n".into(), Found::Foreign)] {
            fs::write(&path, changed).expect("changed");
            assert_eq!(found(&path), Ok(is));
        }
    }
}
