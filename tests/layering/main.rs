//! The map at the top of `src/lib.rs` is true: which room may use which, where SQL and HTTP statuses stand; and files use each
//! other in one direction only.

#![expect(clippy::unwrap_used, reason = "tests")]

mod modules;

use modules::{Crate, Use};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a file.
const LONGEST_FILE: usize = 450;
/// Most lines of the README.
const LONGEST_README: usize = 120;
/// Names of the prelude that no struct, enum or trait of ours may take.
const PRELUDE: [&str; 5] = ["Ok", "From", "Send", "Result", "State"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn read() -> Crate {
    Crate::read(&source().join("lib.rs"))
}

/// The room a file lies in; none for `lib.rs`.
fn room(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(source()).unwrap();
    let name = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    (name != "lib.rs").then(|| name.trim_end_matches(".rs").to_owned())
}

/// Which room may use which, as the map says: a line `ROOM → ROOM ROOM …` each.
fn map() -> BTreeMap<String, BTreeSet<String>> {
    let library = fs::read_to_string(source().join("lib.rs")).unwrap();
    let lines = library.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(" →"));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    lines.filter(|(room, _)| !room.trim().contains(' ')).map(|(room, uses)| (room.trim().to_owned(), words(uses))).collect()
}

fn assert_empty(what: &str, wrong: &BTreeSet<String>) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.iter().map(|line| format!("  {line}\n")).collect::<String>());
}

fn shown(file: &Path) -> String {
    file.strip_prefix(source()).unwrap().display().to_string()
}

#[test]
fn rooms_use_only_what_the_map_allows() {
    let (found, map) = (read(), map());
    let rooms: BTreeSet<String> = found.files.keys().filter_map(|file| room(file)).collect();
    assert_eq!(rooms, map.keys().cloned().collect(), "the map lists the rooms that there are");
    let allowed = |Use { from, to, .. }: &Use| match (room(from), room(to)) {
        (Some(from), Some(to)) => from == to || map[&from].contains(&to),
        _ => true,
    };
    let wrong =
        found.uses().iter().filter(|used| !allowed(used)).map(|used| format!("{}: {}", shown(&used.from), used.path)).collect();
    assert_empty("these uses are not on the map of src/lib.rs", &wrong);
}

#[test]
fn sql_and_http_statuses_stay_in_their_rooms() {
    let sql = |text: &str| {
        let follows = |first: &str, second: &str| text.split_once(first).is_some_and(|(_, rest)| rest.contains(second));
        [
            ("SELECT ", " FROM "),
            ("INSERT ", "INTO "),
            ("UPDATE ", " SET "),
            ("DELETE ", "FROM "),
            ("CREATE ", "TABLE "),
            ("PRAGMA ", ""),
        ]
        .iter()
        .any(|(first, second)| follows(first, second))
    };
    let mut wrong = BTreeSet::new();
    for (file, contents) in &read().files {
        let Some(room) = room(file) else { continue };
        if !["db", "mailbox"].contains(&room.as_str()) {
            wrong.extend(contents.texts.iter().filter(|text| sql(text)).map(|text| format!("{}: SQL: {text}", shown(file))));
        }
        if !["serve", "client"].contains(&room.as_str()) && contents.identifiers.contains("StatusCode") {
            wrong.insert(format!("{}: an HTTP status", shown(file)));
        }
    }
    assert_empty("these belong elsewhere", &wrong);
}

#[test]
fn files_use_each_other_in_one_direction() {
    let mut uses: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    for used in read().uses().into_iter().filter(|used| !used.in_tests) {
        uses.entry(used.from).or_default().insert(used.to);
    }
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = uses.keys().map(|file| (file, reach(&uses, file))).collect();
    let in_circle = |file: &PathBuf, other: &PathBuf| reached.get(other).is_some_and(|back| back.contains(file));
    let circles = reached.iter().filter(|(file, reached)| reached.contains(*file)).map(|(file, reached)| {
        let circle: BTreeSet<String> = reached.iter().filter(|other| in_circle(file, other)).map(|other| shown(other)).collect();
        circle.into_iter().collect::<Vec<_>>().join(" ")
    });
    assert_empty("these files use each other in a circle", &circles.collect());
}

/// The files that `file` uses, and that those use, and so on.
fn reach<'a>(uses: &'a BTreeMap<PathBuf, BTreeSet<PathBuf>>, file: &'a PathBuf) -> BTreeSet<&'a PathBuf> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        next.extend(uses.get(file).into_iter().flatten().filter(|used| reached.insert(*used)));
    }
    reached
}

#[test]
fn files_are_short_and_type_names_distinct() {
    let mut wrong = BTreeSet::new();
    for (file, contents) in &read().files {
        if contents.lines > LONGEST_FILE {
            wrong.insert(format!("{}: {} lines, of {LONGEST_FILE} at most", shown(file), contents.lines));
        }
        wrong.extend(contents.misplaced.iter().map(|module| format!("{}: #[path] for {module}", shown(file))));
        let shadowing = contents.types.iter().filter(|name| PRELUDE.contains(&name.as_str()));
        wrong.extend(shadowing.map(|name| format!("{}: a type called {name}", shown(file))));
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap().lines().count();
    if readme > LONGEST_README {
        wrong.insert(format!("README.md: {readme} lines, of {LONGEST_README} at most"));
    }
    assert_empty("these are against the rules of the house", &wrong);
}
