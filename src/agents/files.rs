//! Reading the files of agents: JSON, JSON with comments, and TOML. A file that cannot be parsed is an error that names the file,
//! line and column.

use super::halves;
use crate::platform::{files, settings::InvalidSetting};
use jsonc_parser::{ParseOptions, cst::CstRootNode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Longest file that is read; Claude Code's own, with all its projects, reaches tens of megabytes.
const MAX_FILE: u64 = 256 * 1024 * 1024;
/// Some editors write this mark at the beginning, and agents skip it.
pub(super) const BYTE_ORDER_MARK: &str = "\u{feff}";

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    #[error("reading {}: {source}", file.display())]
    System { file: PathBuf, source: io::Error },
    #[error("{}, line {line}, column {column}: {reason}", file.display())]
    Broken { file: PathBuf, line: usize, column: usize, reason: String },
}

impl Unreadable {
    pub(super) fn json(file: &Path, error: &serde_json::Error) -> Self {
        let (text, line, column) = (error.to_string(), error.line(), error.column());
        let place = format!(" at line {line} column {column}");
        let reason = text.strip_suffix(&place).unwrap_or(&text).to_owned();
        Self::Broken { file: file.to_owned(), line, column, reason }
    }
}

/// A file's text; none if there is no such file.
pub fn read(file: &Path) -> Result<Option<String>, Unreadable> {
    let text = files::read(file, MAX_FILE).and_then(|text| String::from_utf8(text).map_err(io::Error::other));
    match text {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Unreadable::System { file: file.to_owned(), source }),
    }
}

/// The text of a JSON file after `change`; none if the text cannot be parsed, or `change` gives none. Every byte that it does not
/// touch stays.
pub(super) fn edit(text: &str, change: impl FnOnce(&CstRootNode) -> Option<()>) -> Option<String> {
    let (mark, rest) = text.strip_prefix(BYTE_ORDER_MARK).map_or(("", text), |rest| (BYTE_ORDER_MARK, rest));
    let root = CstRootNode::parse(rest, &ParseOptions::default()).ok()?;
    change(&root)?;
    Some(format!("{mark}{root}"))
}

/// Parses a file's text as Claude Code does, which takes the last of repeated keys.
pub(super) fn parse<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let text = &halves::hidden(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
    serde_json::from_str(text).or_else(|source| {
        let last = serde_json::from_str::<Value>(text).and_then(T::deserialize);
        last.map_err(|_| Unreadable::json(file, &source))
    })
}

/// Parses a file's text. An empty one is the default.
pub(super) fn parse_or_default<T: DeserializeOwned + Default>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let is_empty = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text).trim().is_empty();
    if is_empty { Ok(T::default()) } else { parse(file, text) }
}

/// Parses JSON with comments and trailing commas, which most agents take. An empty text is the default.
pub(super) fn parse_lenient<T: DeserializeOwned + Default>(file: &Path, text: &str) -> Result<T, Unreadable> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    jsonc_parser::parse_to_serde_value(text, &ParseOptions::default()).map_err(|error| {
        let (line, column) = (error.line_display(), error.column_display());
        Unreadable::Broken { file: file.to_owned(), line, column, reason: error.kind().to_string() }
    })
}

pub(super) fn parse_toml<T: DeserializeOwned>(file: &Path, text: &str) -> Result<T, Unreadable> {
    toml::from_str(text).map_err(|error| {
        let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Unreadable::Broken { file: file.to_owned(), line, column, reason: error.message().to_owned() }
    })
}
