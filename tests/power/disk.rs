//! The disks that a power cut can leave.
//!
//! [`Disk`] follows the steps of a recording. For each file and each folder it keeps what is certainly on disk, and the changes
//! that may or may not be. [`Disk::cut`] draws one possible outcome.

use super::recorder::Step;
use crate::support::random::Random;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// The disk writes a sector whole or not at all.
const SECTOR: usize = 512;

/// The files of a disk by their paths; a folder has no content.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// A node's place in [`Disk::nodes`].
type Node = usize;

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Arc<[u8]>),
    Truncate(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(String, Node),
    Rename(String, String, Node),
    Unlink(String, Node),
}

#[derive(Debug, Default)]
struct File {
    is_folder: bool,
    /// The content that the last sync made durable.
    synced: Vec<u8>,
    /// The changes since.
    pending: Vec<Change>,
}

/// Names and nodes.
type Names = BTreeMap<String, Node>;

/// All files, as a running system sees them and as the disk holds them.
#[derive(Debug, Default)]
pub struct Disk {
    nodes: Vec<File>,
    inodes: HashMap<u64, Node>,
    live: Names,
    synced: Names,
    pending: Vec<NameChange>,
}

impl Disk {
    /// A disk that holds these files for certain.
    pub fn new(tree: &Tree) -> Self {
        let mut disk = Self::default();
        for (name, content) in tree {
            disk.live.insert(name.clone(), disk.nodes.len());
            disk.nodes.push(File {
                is_folder: content.is_none(),
                synced: content.clone().unwrap_or_default(),
                pending: Vec::new(),
            });
        }
        disk.synced = disk.live.clone();
        disk
    }

    /// Follows one step of the recording.
    pub fn follow(&mut self, step: &Step) {
        match step {
            Step::Opened { inode, name } => drop(self.inodes.insert(*inode, self.live[name])),
            Step::Created { inode, name } => {
                let node = self.add(name, false);
                self.inodes.insert(*inode, node);
            }
            Step::FolderMade { name } => drop(self.add(name, true)),
            Step::Written { inode, at, bytes } => self.file(*inode).pending.push(Change::Write(*at, bytes[..].into())),
            Step::Truncated { inode, length } => self.file(*inode).pending.push(Change::Truncate(*length)),
            Step::Synced { inode } => {
                let file = self.file(*inode);
                std::mem::take(&mut file.pending).iter().for_each(|change| apply(&mut file.synced, change));
            }
            Step::FolderSynced { name } => {
                let (done, open) = std::mem::take(&mut self.pending).into_iter().partition(|change| folder_of(change) == name);
                self.pending = open;
                <Vec<_> as IntoIterator>::into_iter(done).for_each(|change| apply_name(&mut self.synced, &change));
            }
            Step::Renamed { from, to } => self.rename(from, to),
            Step::Unlinked { name } => {
                let node = self.live[name];
                self.change_name(NameChange::Unlink(name.clone(), node));
            }
        }
    }

    fn add(&mut self, name: &str, is_folder: bool) -> Node {
        let node = self.nodes.len();
        self.nodes.push(File { is_folder, ..File::default() });
        self.change_name(NameChange::Link(name.to_owned(), node));
        node
    }

    fn rename(&mut self, from: &str, to: &str) {
        let node = self.live[from];
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), node));
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.live, &change);
        self.pending.push(change);
    }

    fn file(&mut self, inode: u64) -> &mut File {
        &mut self.nodes[self.inodes[&inode]]
    }

    /// The name of an open file, unless it was removed.
    pub fn name(&self, inode: u64) -> Option<&str> {
        let node = self.inodes.get(&inode)?;
        self.live.iter().find(|(_, named)| *named == node).map(|(name, _)| name.as_str())
    }

    /// How many changes of an open file are not synced.
    pub fn unsynced(&self, inode: u64) -> usize {
        self.inodes.get(&inode).map_or(0, |node| self.nodes[*node].pending.len())
    }

    /// What a running system sees.
    pub fn live(&self) -> Tree {
        self.tree(&self.live, |file| {
            let mut content = file.synced.clone();
            file.pending.iter().for_each(|change| apply(&mut content, change));
            content
        })
    }

    /// A disk that a power cut can leave now.
    pub fn cut(&self, random: &mut Random) -> Tree {
        let (mut names, mut lost) = (self.synced.clone(), BTreeSet::new());
        for (change, kept) in self.pending.iter().zip(fates(self.pending.len(), random)) {
            if kept && !touched(change).any(|name| lost.contains(name)) {
                apply_name(&mut names, change);
            } else {
                lost.extend(touched(change));
            }
        }
        let mut random = random.branch();
        self.tree(&names, |file| survivors(file, &mut random))
    }

    /// The named files whose folders exist.
    fn tree(&self, names: &Names, mut content: impl FnMut(&File) -> Vec<u8>) -> Tree {
        let stands = |name: &str| name.rsplit_once('/').is_none_or(|(folder, _)| names.contains_key(folder));
        let there = names.iter().filter(|(name, _)| stands(name));
        there
            .map(|(name, node)| {
                let file = &self.nodes[*node];
                (name.clone(), (!file.is_folder).then(|| content(file)))
            })
            .collect()
    }
}

/// Which of this many changes reach the disk: one of the patterns that are likely to hurt.
fn fates(changes: usize, random: &mut Random) -> Vec<bool> {
    let number = changes as u64;
    let pick = random.below(number + 1) as usize;
    let pattern = random.below(7);
    (0..changes)
        .map(|at| match pattern {
            0 => true,
            1 => false,
            2 => at < pick,
            3 => at >= pick,
            4 => at != pick,
            5 => at == pick,
            _ => random.below(2) == 0,
        })
        .collect()
}

/// The content of a file after a cut: what was synced, and a part of what was not, in some disks torn at sectors.
fn survivors(file: &File, random: &mut Random) -> Vec<u8> {
    let mut content = file.synced.clone();
    let (fates, tears) = (fates(file.pending.len(), random), random.below(2) == 0);
    for (change, kept) in file.pending.iter().zip(fates) {
        match change {
            Change::Write(at, bytes) if tears && random.below(3) == 0 => tear(&mut content, *at, bytes, random),
            change if kept => apply(&mut content, change),
            _ => {}
        }
    }
    content
}

/// Writes some sectors of `bytes`.
fn tear(content: &mut Vec<u8>, at: usize, bytes: &[u8], random: &mut Random) {
    let mut from = at;
    while from < at + bytes.len() {
        let to = usize::min((from / SECTOR + 1) * SECTOR, at + bytes.len());
        if random.below(2) == 0 {
            write(content, from, &bytes[from - at..to - at]);
        }
        from = to;
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => write(content, *at, bytes),
        Change::Truncate(length) => content.resize(*length, 0),
    }
}

fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

fn apply_name(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Link(name, node) => drop(names.insert(name.clone(), *node)),
        NameChange::Unlink(name, node) => drop((names.get(name) == Some(node)).then(|| names.remove(name))),
        NameChange::Rename(from, to, node) => {
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
    }
}

/// The names that a change affects.
fn touched(change: &NameChange) -> impl Iterator<Item = &str> {
    let (NameChange::Link(name, _) | NameChange::Unlink(name, _) | NameChange::Rename(name, _, _)) = change;
    let new = if let NameChange::Rename(_, new, _) = change { Some(new) } else { None };
    [Some(name), new].into_iter().flatten().map(String::as_str)
}

/// The folder whose sync makes a change of names durable; a rename stays within one.
fn folder_of(change: &NameChange) -> &str {
    let (NameChange::Link(name, _) | NameChange::Unlink(name, _) | NameChange::Rename(_, name, _)) = change;
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
