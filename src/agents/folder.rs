//! Where an agent keeps its configuration.

use crate::platform::{
    paths,
    settings::{self, InvalidSetting},
};
use std::path::{Path, PathBuf};

/// The folder with this place in the home directory, unless the variable moves it; `rest` follows the variable's value in the path.
pub fn of([usual, variable, rest]: [&str; 3]) -> Result<PathBuf, InvalidSetting> {
    let moved = settings::raw(variable).map(|moved| Path::new(&moved).join(rest)).filter(|moved| moved.is_absolute());
    moved.map_or_else(|| Ok(paths::home()?.join(usual)), Ok)
}
