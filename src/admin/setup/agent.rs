//! The LaunchAgent, on a Mac: its file, and launchd's knowledge of it.

use super::{
    files::{self, Draft, Found},
    place::Place,
    step::Step,
};
use crate::{
    admin::manager::{LABEL, Launchd, log, plist},
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

const NAME: &str = "agent";

pub fn socket(place: &Place) -> PathBuf {
    place.home.join(".claude-peers/broker.sock")
}

fn path(place: &Place) -> PathBuf {
    place.home.join(format!("Library/LaunchAgents/{LABEL}.plist"))
}

pub async fn put(place: &Place, launchd: &Launchd, port: Option<u16>) -> Vec<Step> {
    plan(place, launchd, port).await.unwrap_or_else(|problem| vec![Step::impossible(NAME, problem)])
}

async fn plan(place: &Place, launchd: &Launchd, port: Option<u16>) -> Result<Vec<Step>, Problem> {
    let (path, socket) = (path(place), socket(place));
    let port = port.or_else(|| port_in(&path)).unwrap_or(DEFAULT_PORT);
    let draft = Draft::xml(path.clone(), &plist(&place.bin, &socket, &place.home, port)?);
    let found = draft.found()?;
    if let Some(whose) = found.not_ours() {
        let what = format!("{} {whose}: it is left as it is", path.display());
        return Err(Problem::new(what, "move it away and run this again"));
    }
    let what = format!("write {} for port {port} and load it", path.display());
    let loaded = launchd.knows().await;
    if found == Found::Same && loaded {
        let renew = renew(&socket, launchd).await;
        return Ok(std::iter::once(Step::already(NAME, what)).chain(renew).collect());
    }
    let (log, launchd) = (log(&place.home), launchd.clone());
    Ok(vec![Step::to_do(NAME, what, async move {
        // launchd makes the files in them, and not them.
        for folder in [&socket, &log].into_iter().filter_map(|file| file.parent()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|e| Problem::io("making", folder, &e, "give yourself the right to write there"))?;
        }
        if found != Found::Same {
            draft.write()?;
        }
        if loaded {
            launchd.unload().await?;
        }
        launchd.enable().run().await?;
        launchd.bootstrap(&path).run().await?;
        Ok(())
    })])
}

/// A broker of another version is replaced by the installed one. Asking starts it where it does not run.
async fn renew(socket: &Path, launchd: &Launchd) -> Option<Step> {
    launchd.pid().await.ok()??;
    let hello: Hello = Client::new(socket.to_owned(), "claude-peers").hello().await.ok()?;
    let what = format!("restart it as version {VERSION} (it is {})", hello.version);
    (hello.version != VERSION).then(|| Step::calls("broker", what, vec![launchd.restart()]))
}

pub async fn take_back(place: &Place, launchd: &Launchd) -> Step {
    let (path, base) = (path(place), place.home.clone());
    let what = format!("unload and remove {}", path.display());
    let found = match files::found(&path) {
        Ok(found) => found,
        Err(problem) => return Step::impossible(NAME, problem),
    };
    let loaded = launchd.knows().await;
    if found == Found::Nothing && !loaded {
        return Step::already(NAME, what);
    }
    if found.not_ours().is_some() {
        let what = format!("{} is not as setup wrote it: it is left as it is", path.display());
        return Step::impossible(NAME, Problem::new(what, "remove it by hand"));
    }
    let launchd = launchd.clone();
    Step::to_do(NAME, what, async move {
        if loaded {
            launchd.unload().await?;
        }
        files::remove(&path, &base)
    })
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
    use std::process::Command;

    #[test]
    fn the_file_with_its_mark_is_a_property_list_and_gives_its_port_back() {
        let home = tempfile::tempdir().expect("a folder");
        let place = Place { bin: "/opt/a & b/bin".into(), package: None, home: home.path().to_owned() };
        let content = plist(&place.bin, &socket(&place), &place.home, 7900).expect("a property list");
        let path = path(&place);
        Draft::xml(path.clone(), &content).write().expect("written");
        assert_eq!(port_in(&path), Some(7900));
        assert_eq!(files::found(&path), Ok(Found::Ours));
        // Apple's own parser is not to be had here, but others are.
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
