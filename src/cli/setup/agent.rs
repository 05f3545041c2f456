//! The LaunchAgent, on a Mac: its file, and launchd's knowledge of it.

use super::{
    files::{self, Draft, Found},
    place::Place,
    step::{Ended, Problem, Step},
};
use crate::{
    cli::manager::{LABEL, Launchd, log, plist},
    client::Client,
    paths::DEFAULT_PORT,
    wire::{Hello, VERSION},
};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

const NAME: &str = "agent";

/// The socket that launchd makes.
pub fn socket(place: &Place) -> PathBuf {
    place.home.join(".claude-peers/broker.sock")
}

fn path(place: &Place) -> PathBuf {
    place.home.join(format!("Library/LaunchAgents/{LABEL}.plist"))
}

/// The steps that put it in place.
pub async fn put(place: &Place, launchd: &Launchd, port: Option<u16>) -> Vec<Step> {
    match plan(place, launchd, port).await {
        Ok(steps) => steps,
        Err(problem) => vec![Step::impossible(NAME, problem)],
    }
}

async fn plan(place: &Place, launchd: &Launchd, port: Option<u16>) -> Result<Vec<Step>, Problem> {
    let (path, socket) = (path(place), socket(place));
    let port = port.or_else(|| port_in(&path)).unwrap_or(DEFAULT_PORT);
    let content = plist(&place.bin, &socket, &place.home, port)
        .map_err(|e| Problem::new(e.to_string(), "install the programs in a folder with a plain name"))?;
    let draft = Draft::xml(path.clone(), &content);
    let found = draft.found()?;
    let what = format!("write {} for port {port} and load it", path.display());
    let loaded = launchd.print().await.is_some();
    match found {
        Found::Changed | Found::Foreign => {
            let whose = if found == Found::Changed { "is ours, but somebody has changed it" } else { "is not ours" };
            return Err(Problem::new(
                format!("{} {whose}: it is left as it is", path.display()),
                "move it away and run this again",
            ));
        }
        Found::Same if loaded => {
            let mut steps = vec![Step::already(NAME, what)];
            steps.extend(renew(&socket, launchd).await);
            return Ok(steps);
        }
        _ => {}
    }
    let (write, log, launchd) = (found != Found::Same, log(&place.home), launchd.clone());
    Ok(vec![Step::to_do(NAME, what, async move {
        // launchd makes the files in them, and not them.
        for folder in [&socket, &log].into_iter().filter_map(|file| file.parent()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| {
                Problem::new(format!("making {}: {e}", folder.display()), "give yourself the right to write there")
            })?;
        }
        if write {
            draft.write()?;
        }
        if loaded {
            launchd.unload().await?;
        }
        launchd.enable().run().await?;
        launchd.bootstrap(&path).run().await?;
        Ok(Ended::Well(String::new()))
    })])
}

/// A broker of another version is replaced by the installed one. Asking starts it where it does not run.
async fn renew(socket: &Path, launchd: &Launchd) -> Option<Step> {
    launchd.pid().await.ok()??;
    let hello: Hello = Client::new(socket.to_owned(), "claude-peers").hello().await.ok()?;
    let restart = launchd.restart();
    (hello.version != VERSION).then(|| {
        Step::to_do("broker", format!("restart it as version {VERSION} (it is {})", hello.version), async move {
            restart.run().await?;
            Ok(Ended::Well(String::new()))
        })
    })
}

/// The steps that take it away.
pub async fn take_back(place: &Place, launchd: &Launchd) -> Vec<Step> {
    let (path, base) = (path(place), place.home.clone());
    let what = format!("unload and remove {}", path.display());
    let found = match files::found(&path) {
        Ok(found) => found,
        Err(problem) => return vec![Step::impossible(NAME, problem)],
    };
    let loaded = launchd.print().await.is_some();
    if found == Found::Nothing && !loaded {
        return vec![Step::already(NAME, what)];
    }
    if matches!(found, Found::Changed | Found::Foreign) {
        let problem =
            Problem::new(format!("{} is not as setup wrote it: it is left as it is", path.display()), "remove it by hand");
        return vec![Step::impossible(NAME, problem)];
    }
    let launchd = launchd.clone();
    vec![Step::to_do(NAME, what, async move {
        if loaded {
            launchd.unload().await?;
        }
        files::remove(&path, &base)?;
        Ok(Ended::Well(String::new()))
    })]
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
        match Command::new("xmllint").args(["--noout", "--nonet"]).arg(&path).output() {
            Ok(judged) => assert!(judged.status.success(), "{judged:?}"),
            Err(_) => eprintln!("SKIPPED: xmllint (Debian's libxml2-utils) is not installed"),
        }
    }
}
