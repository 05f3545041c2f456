//! Where this copy of claude-peers is installed.

use crate::{
    console::Failure,
    platform::{paths, settings},
};
use std::path::{Path, PathBuf};

/// The programs that belong together. This one comes last, so that the next update completes an interrupted one.
pub const PROGRAMS: [&str; 3] = ["claude-peersd", "claude-peers-mcp", "claude-peers"];
/// The program that links this machine with others, which has a package of its own.
pub const LINK: &str = "claude-peers-link";
/// Where a package puts programs and units.
const PACKAGE_PREFIXES: [&str; 2] = ["/usr", "/usr/local"];

#[derive(Debug, Clone)]
pub struct Place {
    pub bin: PathBuf,
    /// The unit folder of the package that installed this copy.
    pub package: Option<PathBuf>,
    pub home: PathBuf,
}

impl Place {
    /// Derives the place from the running program.
    pub fn find() -> Result<Self, Failure> {
        let me = this_program()?;
        let bin = me.parent().unwrap_or(Path::new("/"));
        let bin = lasting(bin).unwrap_or_else(|| bin.to_owned());
        if let Some(missing) = PROGRAMS.iter().find(|program| !bin.join(program).is_file()) {
            let what = format!("{missing} is missing in {}", bin.display());
            return Err(Failure::local(what, "install all three programs together (`cargo install --path .`)"));
        }
        // Units and the registration name this folder.
        let plain = |c: char| !c.is_control() && !"\"'\\$".contains(c);
        if !bin.to_str().is_some_and(|bin| bin.chars().all(plain)) {
            let what = format!("units cannot name {}: it contains quotes, a backslash, a dollar, or is not UTF-8", bin.display());
            return Err(Failure::local(what, "install the programs in a folder with a plain name"));
        }
        let package = PACKAGE_PREFIXES.iter().map(Path::new).find(|prefix| bin == prefix.join("bin"));
        let package =
            package.map(|prefix| prefix.join("lib/systemd/user")).filter(|units| units.join("claude-peers.service").is_file());
        Ok(Self { bin, package, home: paths::home()? })
    }

    pub fn server(&self) -> PathBuf {
        self.bin.join("claude-peers-mcp")
    }

    pub fn command_line(&self) -> PathBuf {
        self.bin.join("claude-peers")
    }

    /// A warning about a folder that may soon disappear.
    pub fn passing(&self) -> Option<String> {
        let built = self.bin.ends_with("target/debug") || self.bin.ends_with("target/release");
        let passing = built || self.bin.starts_with(std::env::temp_dir());
        let help = "looks temporary: `cargo install --path .` installs the programs for good";
        passing.then(|| format!("{} {help}", self.bin.display()))
    }

    /// The folder in `variable`, else `usual` in the home directory.
    pub fn folder(&self, variable: &str, usual: &str) -> PathBuf {
        settings::raw(variable).map(PathBuf::from).filter(|folder| folder.is_absolute()).unwrap_or_else(|| self.home.join(usual))
    }

    /// Empty folders are removed with the file at `path`, up to this one.
    pub fn base<'a>(&'a self, path: &'a Path) -> &'a Path {
        if path.starts_with(&self.home) { &self.home } else { path.parent().unwrap_or(path) }
    }
}

pub fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|e| Failure::local(format!("finding this program's file: {e}"), "call it by its full path"))
}

/// The program `name` that was installed together with this one.
pub fn beside(name: &str) -> Option<PathBuf> {
    // Prefers setup's folder, if there is one, because it outlives an upgrade.
    let folder = match Place::find() {
        Ok(place) => place.bin,
        Err(_) => std::env::current_exe().ok()?.parent()?.to_owned(),
    };
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// Every copy of `name` on `PATH`. A shell runs the first.
pub fn on_path(name: &str) -> Vec<PathBuf> {
    which::which_all(name).map(Iterator::collect).unwrap_or_default()
}

/// Where the program `name` of ours is: beside this one, else on `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    beside(name).or_else(|| which::which(name).ok())
}

/// Homebrew's links to the programs, which survive an upgrade; their own folder is named after the version.
fn lasting(bin: &Path) -> Option<PathBuf> {
    let cellar = bin.ancestors().find(|folder| folder.ends_with("Cellar"))?;
    let links = cellar.parent()?.join("bin");
    let same = |program: &str| std::fs::canonicalize(links.join(program)).ok() == std::fs::canonicalize(bin.join(program)).ok();
    PROGRAMS.iter().all(|program| links.join(program).exists() && same(program)).then_some(links)
}

/// Keeps `sudo` from setting up root's account.
pub fn refuse_sudo() -> Result<(), Failure> {
    let user = settings::raw("SUDO_USER").map(|user| user.to_string_lossy().into_owned()).filter(|user| user != "root");
    match user {
        Some(user) if rustix::process::geteuid().is_root() => Err(Failure::local(
            format!("this would set up claude-peers for root, not for {user}, who called sudo"),
            "run it as yourself, without sudo: it needs no more rights than you have",
        )),
        _ => Ok(()),
    }
}

pub fn unseen_settings() -> Option<String> {
    let mut set = vec!["CLAUDE_PEERS_SOCKET", "CLAUDE_PEERS_DB", "CLAUDE_PEERS_PORT"];
    set.retain(|name| settings::raw(name).is_some());
    let are = if set.len() > 1 { "are" } else { "is" };
    (!set.is_empty()).then(|| format!("{} {are} set here, which the installed service does not see", set.join(" and ")))
}
