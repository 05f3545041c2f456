//! The crate as a tree of modules, and which file each path in it leads to.
//!
//! A path counts as a use of the file that defines what it names, through re-exports: `crate::wire::Code` uses
//! `wire/error.rs`. Naming a module alone uses nothing; the paths that go through it do. Methods are not followed.

use proc_macro2::{TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use syn::{Attribute, File, Item, UseTree, visit::Visit};

/// How many re-exports a name may pass through.
const MAX_HOPS: usize = 16;

/// Segments of a path from the root of the crate, or of a module.
type Segments = Vec<String>;

/// A module, in a file of its own or inside one.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// The names that `use` brings in, with the paths they stand for.
    names: BTreeMap<String, Segments>,
}

/// A path as it stands in a module.
#[derive(Debug)]
struct Mention {
    module: Segments,
    path: Segments,
    in_tests: bool,
}

/// What one file uses of another.
#[derive(Debug)]
pub struct Use {
    pub from: PathBuf,
    pub to: PathBuf,
    /// The path from the crate's root.
    pub path: String,
    pub in_tests: bool,
}

/// The source of a crate.
#[derive(Debug, Default)]
pub struct Crate {
    modules: BTreeMap<Segments, Module>,
    mentions: Vec<Mention>,
    /// Each file with its text literals and the names of the structs, enums and traits it defines.
    pub files: BTreeMap<PathBuf, Contents>,
}

/// What a file holds besides paths.
#[derive(Debug, Default)]
pub struct Contents {
    pub lines: usize,
    pub texts: Vec<String>,
    pub types: Vec<String>,
    pub identifiers: BTreeSet<String>,
    /// Modules whose files `#[path]` puts elsewhere; they are not read.
    pub misplaced: Vec<String>,
}

impl Crate {
    /// Reads the crate whose root is `src/lib.rs`.
    pub fn read(root: &Path) -> Self {
        let mut found = Self::default();
        found.read_file(root, root.parent().unwrap(), Vec::new(), false);
        found
    }

    fn read_file(&mut self, file: &Path, children: &Path, module: Segments, in_tests: bool) {
        let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed: File = syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.files.insert(file.to_owned(), Contents { lines: source.lines().count(), ..Contents::default() });
        self.modules.insert(module.clone(), Module { file: file.to_owned(), ..Module::default() });
        let mut reader = Reader { found: self, file, children: children.to_owned(), module, in_tests };
        parsed.items.iter().for_each(|item| reader.visit_item(item));
    }

    /// Every use of one file by another.
    pub fn uses(&self) -> Vec<Use> {
        let uses = self.mentions.iter().filter_map(|mention| {
            let path = self.absolute(&mention.module, &mention.path)?;
            let (from, to) = (&self.modules[&mention.module].file, self.file_of(&path, MAX_HOPS)?);
            let (from, to, path) = (from.clone(), to.clone(), path.join("::"));
            (from != to).then_some(Use { from, to, path, in_tests: mention.in_tests })
        });
        uses.collect()
    }

    /// A path as it stands in `module`, from the root; none if it leads out of the crate.
    fn absolute(&self, module: &Segments, path: &Segments) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            name => {
                let here = &self.modules[module];
                let known = here.children.contains(name) || here.names.contains_key(name);
                return known.then(|| module.iter().chain(path).cloned().collect());
            }
        };
        let ups = rest.iter().take_while(|segment| *segment == "super").count();
        base.truncate(base.len().checked_sub(ups)?);
        base.extend(rest[ups..].iter().cloned());
        Some(base)
    }

    /// The file that defines what a path from the root names; none for a module itself, and for what is not of this crate.
    fn file_of(&self, path: &[String], hops: usize) -> Option<&PathBuf> {
        let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth]))?;
        let (module, rest) = path.split_at(depth);
        let name = rest.first()?;
        let here = &self.modules[module];
        match here.names.get(name).filter(|target| target.as_slice() != [name.clone()]) {
            None => Some(&here.file),
            Some(target) => {
                let mut target = self.absolute(&module.to_vec(), target)?;
                target.extend(rest[1..].iter().cloned());
                self.file_of(&target, hops.checked_sub(1)?)
            }
        }
    }
}

/// Walks through a file's syntax.
struct Reader<'a> {
    found: &'a mut Crate,
    file: &'a Path,
    children: PathBuf,
    module: Segments,
    in_tests: bool,
}

impl Reader<'_> {
    fn contents(&mut self) -> &mut Contents {
        self.found.files.get_mut(self.file).unwrap()
    }

    fn mention(&mut self, path: Segments) {
        self.contents().identifiers.extend(path.iter().cloned());
        self.found.mentions.push(Mention { module: self.module.clone(), path, in_tests: self.in_tests });
    }

    fn bring_in(&mut self, tree: &UseTree, mut path: Segments) {
        match tree {
            UseTree::Path(part) => {
                path.push(part.ident.to_string());
                self.bring_in(&part.tree, path);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.bring_in(tree, path.clone())),
            UseTree::Glob(_) => {
                path.push("*".to_owned());
                self.mention(path);
            }
            UseTree::Name(name) if name.ident == "self" => {
                let name = path.last().unwrap().clone();
                self.name(name, path);
            }
            UseTree::Name(name) => {
                path.push(name.ident.to_string());
                self.name(name.ident.to_string(), path);
            }
            UseTree::Rename(rename) => {
                path.push(rename.ident.to_string());
                self.name(rename.rename.to_string(), path);
            }
        }
    }

    fn name(&mut self, name: String, path: Segments) {
        self.mention(path.clone());
        self.found.modules.get_mut(&self.module).unwrap().names.insert(name, path);
    }

    /// Inside a macro's tokens: every `a::b` and every text.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Segments::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || colons == 2 => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                other => {
                    self.mention(std::mem::take(&mut path));
                    match other {
                        TokenTree::Ident(ident) => path.push(ident.to_string()),
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(literal) => self.contents().texts.push(literal.to_string()),
                        TokenTree::Punct(_) => {}
                    }
                }
            }
            colons = 0;
        }
        self.mention(path);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name): (&[Attribute], _) = match item {
            Item::Mod(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, None),
            Item::Fn(item) => (&item.attrs, None),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            _ => (&[], None),
        };
        let before = self.in_tests;
        self.in_tests |= attributes.iter().any(is_for_tests);
        self.contents().types.extend(name.map(ToString::to_string));
        syn::visit::visit_item(self, item);
        self.in_tests = before;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        self.found.modules.get_mut(&self.module).unwrap().children.insert(name.clone());
        let module: Segments = self.module.iter().chain([&name]).cloned().collect();
        if let Some((_, items)) = &item.content {
            self.found.modules.insert(module.clone(), Module { file: self.file.to_owned(), ..Module::default() });
            let children = self.children.join(&name);
            let mut inner = Reader { found: self.found, file: self.file, children, module, in_tests: self.in_tests };
            items.iter().for_each(|item| inner.visit_item(item));
        } else if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            self.contents().misplaced.push(name);
        } else {
            let folder = self.children.join(&name);
            let file = Some(folder.join("mod.rs")).filter(|file| file.exists()).unwrap_or_else(|| folder.with_extension("rs"));
            self.found.read_file(&file, &folder, module, self.in_tests);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.bring_in(&item.tree, Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.mention(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.contents().texts.push(text.value());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {} // documentation is no code
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}
