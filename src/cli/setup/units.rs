//! The units of systemd: those of the package, or copies of our own in the user's folder.

use super::{
    files::{self, Draft, Found},
    place::Place,
    step::{Ended, Problem, Step},
};
use crate::{
    cli::manager::{SERVICE, SOCKET, SOCKETS, Systemd, TCP_SOCKET},
    paths::DEFAULT_PORT,
};
use std::path::PathBuf;

const NAME: &str = "units";
/// The units, as the package has them.
const UNITS: [(&str, &str); 3] = [
    (SOCKET, include_str!("../../../systemd/claude-peers.socket")),
    (TCP_SOCKET, include_str!("../../../systemd/claude-peers-tcp.socket")),
    (SERVICE, include_str!("../../../systemd/claude-peers.service")),
];
/// What has the session bus start the service.
const ACTIVATION: (&str, &str) =
    ("dev.claudepeers.Broker1.service", include_str!("../../../packaging/dbus/dev.claudepeers.Broker1.service"));
/// Where the programs of a package are.
const PACKAGED: &str = "/usr/bin/";

/// The files of this user, as they are to be and as they are.
pub struct Units {
    write: Vec<Draft>,
    remove: Vec<PathBuf>,
    /// Files in the way that are not ours.
    foreign: Vec<Problem>,
    place: Place,
    folder: PathBuf,
    /// The port changes with the files.
    pub port: Option<u16>,
}

impl Units {
    /// Looks at what is there, and what `setup` has to change about it. `port`: another than before.
    pub fn look(place: &Place, systemd: &Systemd, port: Option<u16>) -> Result<Self, Problem> {
        let mut units = Self::none(place, systemd);
        for draft in units.copies() {
            match (&place.package, draft.found()?) {
                (None, Found::Nothing | Found::Ours) => units.write.push(draft),
                // Old copies of ours would hide the package's units.
                (Some(_), Found::Same | Found::Ours) => units.remove.push(draft.path),
                (None, Found::Same) | (Some(_), Found::Nothing) => {}
                (_, found) => units.foreign.push(in_the_way(&draft, found, place)),
            }
        }
        if let Some(port) = port {
            let before = (units.write.len(), units.remove.len());
            for draft in units.drop_ins(port) {
                match (port == DEFAULT_PORT, draft.found()?) {
                    (false, Found::Nothing | Found::Ours) => units.write.push(draft),
                    (true, Found::Same | Found::Ours) => units.remove.push(draft.path),
                    (false, Found::Same) | (true, Found::Nothing) => {}
                    (_, found) => units.foreign.push(in_the_way(&draft, found, place)),
                }
            }
            units.port = Some(port).filter(|_| before != (units.write.len(), units.remove.len()));
        }
        Ok(units)
    }

    /// Looks for what `setup --undo` has to remove.
    pub fn look_back(place: &Place, systemd: &Systemd) -> Result<Self, Problem> {
        let mut units = Self::none(place, systemd);
        let drafts = units.copies().into_iter().chain(units.drop_ins(DEFAULT_PORT));
        for draft in drafts {
            match draft.found()? {
                Found::Same | Found::Ours => units.remove.push(draft.path),
                Found::Changed => units.foreign.push(in_the_way(&draft, Found::Changed, place)),
                Found::Nothing | Found::Foreign => {}
            }
        }
        Ok(units)
    }

    fn none(place: &Place, systemd: &Systemd) -> Self {
        let usual = place.home.join(".config/systemd/user");
        let set = place.folder("XDG_CONFIG_HOME", ".config").join("systemd/user");
        // The user's systemd may have been started without what this shell has set: only it knows where it reads.
        let folder = if systemd.unit_path.is_empty() || systemd.unit_path.contains(&set) { set } else { usual };
        Self { write: Vec::new(), remove: Vec::new(), foreign: Vec::new(), place: place.clone(), folder, port: None }
    }

    /// Copies of the package's files, for the programs of this place.
    fn copies(&self) -> Vec<Draft> {
        let bin = format!("{}/", self.place.bin.to_string_lossy().trim_end_matches('/'));
        let units = UNITS.map(|(name, text)| Draft::text(self.folder.join(name), &placed(text, &bin)));
        let (name, text) = ACTIVATION;
        let data = self.place.folder("XDG_DATA_HOME", ".local/share").join("dbus-1/services");
        let activation = Draft::text(data.join(name), &placed(text, &bin));
        units.into_iter().chain([activation]).collect()
    }

    /// What changes the port of the units.
    fn drop_ins(&self, port: u16) -> [Draft; 2] {
        let file = |unit: &str, text: String| Draft::text(self.folder.join(format!("{unit}.d/port.conf")), &text);
        [
            file(
                TCP_SOCKET,
                format!("[Socket]\n# Instead of the one that the unit names.\nListenStream=\nListenStream=127.0.0.1:{port}\n"),
            ),
            file(SERVICE, format!("[Service]\nEnvironment=CLAUDE_PEERS_PORT={port}\n")),
        ]
    }

    /// Whether anything changes.
    pub fn change(&self) -> bool {
        !self.write.is_empty() || !self.remove.is_empty()
    }

    /// The steps that put the files in place.
    pub fn put(self, systemd: &Systemd) -> Vec<Step> {
        let mut steps: Vec<_> = self.foreign.iter().map(|problem| Step::impossible(NAME, problem.clone())).collect();
        let folder = self.folder.display().to_string();
        if !self.change() {
            if steps.is_empty() {
                steps.push(match &self.place.package {
                    Some(package) => Step::already(NAME, format!("use the units of the package in {}", package.display())),
                    None => Step::already(NAME, format!("write the units into {folder}")),
                });
            }
            return steps;
        }
        let mut what = Vec::new();
        if !self.write.is_empty() {
            what.push(format!("write {} into {folder}", counted(self.write.len())));
        }
        if !self.remove.is_empty() {
            what.push(format!("remove {} of an earlier setup", counted(self.remove.len())));
        }
        let what = what.join(", ") + &self.port.map(|port| format!(", for TCP port {port}")).unwrap_or_default();
        let shadow = self.place.package.is_none() && std::path::Path::new("/usr/lib/systemd/user").join(SERVICE).exists();
        let note = shadow.then(|| "they take the place of the package's units in /usr/lib/systemd/user".to_owned());
        steps.push(Step::to_do(NAME, what, self.change_files(systemd.clone())).note(note));
        steps
    }

    /// The steps that remove them.
    pub fn take_back(self, systemd: &Systemd) -> Vec<Step> {
        let mut steps: Vec<_> = self.foreign.iter().map(|problem| Step::impossible(NAME, problem.clone())).collect();
        let folder = self.folder.display().to_string();
        steps.push(match self.remove.len() {
            0 => Step::already(NAME, format!("remove units from {folder}")),
            count => Step::to_do(NAME, format!("remove {} from {folder}", counted(count)), self.change_files(systemd.clone())),
        });
        steps
    }

    async fn change_files(self, systemd: Systemd) -> Result<Ended, Problem> {
        if self.place.package.is_some() && self.remove.iter().any(|path| path.ends_with(SOCKET)) {
            // The links that enabled our copies; the package has enabled its own for all users.
            systemd.disable(SOCKETS).run().await?;
        }
        for draft in &self.write {
            draft.write()?;
        }
        for path in &self.remove {
            files::remove(path, self.place.base(path))?;
        }
        systemd.reload().run().await?;
        Ok(Ended::Well(String::new()))
    }
}

/// The file `text` with its programs in `bin`.
fn placed(text: &str, bin: &str) -> String {
    let escaped = bin.replace('%', "%%");
    if !bin.contains(char::is_whitespace) {
        return text.replace(PACKAGED, &escaped);
    }
    // A folder with a blank stands in quotes, here and in the session bus's file.
    let line = |line: &str| match line.split_once(PACKAGED) {
        Some((key @ ("ExecStart=" | "Exec="), program)) => format!("{key}\"{escaped}{program}\"\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn counted(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn in_the_way(draft: &Draft, found: Found, place: &Place) -> Problem {
    let path = draft.path.display();
    let what = match found {
        Found::Changed => format!("{path} is ours, but somebody has changed it: it is left as it is"),
        _ => format!("{path} is not ours: it is left as it is"),
    };
    let instead = if place.package.is_some() { "; it hides the package's own" } else { "" };
    Problem::new(what, format!("keep what you need of it in a drop-in, move it away and run this again{instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_starts_the_program_of_its_place() {
        let text = "[Service]\nExecStart=/usr/bin/claude-peersd\nUMask=0077\n";
        assert_eq!(placed(text, "/home/u/.cargo/bin/"), "[Service]\nExecStart=/home/u/.cargo/bin/claude-peersd\nUMask=0077\n");
        assert_eq!(placed(text, "/a b/100%/"), "[Service]\nExecStart=\"/a b/100%%/claude-peersd\"\nUMask=0077\n");
        for (name, text) in UNITS {
            let text = placed(text, "/opt/x/");
            assert!(!text.contains(PACKAGED), "{name}: {text}");
        }
    }
}
