//! The service on a Mac: the LaunchAgent's file, loaded into launchd.

use super::{
    files::{Change, Draft},
    place::Place,
    step::Step,
};
use crate::{
    admin::manager::{LABEL, Launchd, log, plist, socket},
    client::Client,
    console::exit::Problem,
    platform::paths::DEFAULT_PORT,
    wire::{Hello, VERSION},
};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

pub const NAME: &str = "agent";

fn path(place: &Place) -> PathBuf {
    place.home.join(format!("Library/LaunchAgents/{LABEL}.plist"))
}

fn draft(place: &Place, port: u16) -> Result<Draft, Problem> {
    Ok(Draft::xml(path(place), &plist(&place.bin, &place.home, port)?))
}

pub async fn put(place: &Place, launchd: &Launchd, port: Option<u16>) -> Result<Vec<Step>, Problem> {
    let path = path(place);
    let port = port.or_else(|| port_in(&path)).unwrap_or(DEFAULT_PORT);
    let mut change = Change::default();
    change.add(draft(place, port)?, true)?;
    if !change.in_the_way.is_empty() {
        return Ok(change.in_the_way);
    }
    let what = format!("write and load {}, for port {port}", path.display());
    let (log, socket, loaded) = (log(&place.home), socket(&place.home), launchd.knows().await);
    if change.count() == 0 && loaded {
        let renew = renew(socket, launchd).await;
        return Ok(std::iter::once(Step::already(what)).chain(renew).collect());
    }
    let (launchd, place) = (launchd.clone(), place.clone());
    Ok(vec![Step::to_do(what, async move {
        // launchd creates socket and log, but not their folders.
        for folder in [socket, log].iter().filter_map(|file| file.parent()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| Problem::io("making", folder, &e, "give yourself the right to write there"))?;
        }
        change.make(&place)?;
        if loaded {
            launchd.unload().await?;
        }
        launchd.enable().run().await?;
        launchd.bootstrap(&path).run().await?;
        Ok(())
    })])
}

/// Restarts a broker of another version. Asking starts one where none runs.
async fn renew(socket: PathBuf, launchd: &Launchd) -> Option<Step> {
    launchd.pid().await.ok()??;
    let hello: Hello = Client::new(socket, "claude-peers").hello().await.ok()?;
    let what = format!("restart the broker as version {VERSION} (it is {})", hello.version);
    (hello.version != VERSION).then(|| Step::calls(what, vec![launchd.restart()]).named("broker"))
}

pub async fn take_back(place: &Place, launchd: &Launchd) -> Result<Vec<Step>, Problem> {
    let mut change = Change::default();
    change.add(draft(place, DEFAULT_PORT)?, false)?;
    if !change.in_the_way.is_empty() {
        return Ok(change.in_the_way);
    }
    let what = format!("unload and remove {}", path(place).display());
    let loaded = launchd.knows().await;
    if change.count() == 0 && !loaded {
        return Ok(vec![Step::already(what)]);
    }
    let (launchd, place) = (launchd.clone(), place.clone());
    Ok(vec![Step::to_do(what, async move {
        if loaded {
            launchd.unload().await?;
        }
        change.make(&place)
    })])
}

/// The port that the agent at `path` names.
fn port_in(path: &Path) -> Option<u16> {
    let agent = ::plist::Value::from_file(path).ok()?;
    let tcp = agent.as_dictionary()?.get("Sockets")?.as_dictionary()?.get("tcp")?;
    tcp.as_dictionary()?.get("SockServiceName")?.as_string()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::setup::{Found, found};
    use std::process::Command;

    #[test]
    fn agent_is_a_property_list_with_its_port() {
        let home = tempfile::tempdir().expect("a folder");
        let place = Place { bin: "/opt/a & b/bin".into(), package: None, home: home.path().to_owned() };
        let path = path(&place);
        let mut change = Change::default();
        let added = draft(&place, 7900).and_then(|draft| change.add(draft, true));
        added.and_then(|()| change.make(&place)).expect("written");
        assert_eq!((port_in(&path), found(&path)), (Some(7900), Ok(Found::Ours)));
        // Parsers that stand in for Apple's.
        let binary = home.path().join("agent.bin");
        let (path, copy) = (path.to_string_lossy(), binary.to_string_lossy());
        for (parser, words) in
            [("xmllint", vec!["--noout", "--nonet", &path]), ("plistutil", vec!["-f", "bin", "-i", &path, "-o", &copy])]
        {
            match Command::new(parser).args(words).output() {
                Ok(judged) => assert!(judged.status.success(), "{judged:?}"),
                Err(_) => eprintln!("SKIPPED: {parser} (Debian's libxml2-utils, libplist-utils) is not installed"),
            }
        }
        if binary.exists() {
            let read = |path: &str| ::plist::Value::from_file(path).expect("a property list");
            assert_eq!(read(&copy), read(&path));
        }
    }
}
