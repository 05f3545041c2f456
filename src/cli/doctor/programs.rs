//! Our own programs: where copies of them lie, and which version each is.

use crate::cli::{call::Call, setup::Place};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

/// The three programs, by their files' names.
pub const NAMES: [&str; 3] = ["claude-peers", "claude-peersd", "claude-peers-mcp"];

/// The version that the program says it is: the last word of `NAME VERSION`.
///
/// # Errors
/// In words, if it says none.
pub async fn version(program: &Path) -> Result<String, String> {
    let call = Call::new(program.to_string_lossy(), program, ["--version"], PATIENCE);
    let said = call.run().await.map_err(|error| error.to_string())?;
    let version = said.split_whitespace().last().filter(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    version.map(str::to_owned).ok_or_else(|| format!("{} does not say its version", program.display()))
}

/// The program `name` that was installed together with this one.
pub fn beside(name: &str) -> Option<PathBuf> {
    // As setup would name it: a folder that stays, where there is one.
    let folder = match Place::find() {
        Ok(place) => place.bin,
        Err(_) => std::env::current_exe().ok()?.parent()?.to_owned(),
    };
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// Every copy of `name` on `PATH`, the one that is run first.
pub fn on_path(name: &str) -> Vec<PathBuf> {
    which::which_all(name).map(Iterator::collect).unwrap_or_default()
}

/// The name of the user `uid`, as far as the system knows it.
pub async fn user(uid: u32) -> String {
    let named = Call::new("id", "id", ["-nu", &uid.to_string()], PATIENCE).run().await;
    named.map(|name| name.trim().to_owned()).unwrap_or_else(|_| format!("number {uid}"))
}

/// Whether two paths name the same file.
pub fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
