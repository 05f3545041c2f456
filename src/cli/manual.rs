//! `manual`: writes the man pages: one per command, made from its `--help`, and those of the two other programs. Or prints
//! `docs/settings.md`. Packages call it, so a page always agrees with `--help`.

use crate::{
    console::{Failure, Out},
    platform::settings::{self, Setting},
};
use clap::Command;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use serde_json::json;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The pages of the programs whose `--help` the command line cannot see. A comment marks the place of their settings.
const OTHERS: [(&str, &str); 2] = [
    ("claude-peersd", include_str!("../../packaging/man/claude-peersd.1")),
    ("claude-peers-mcp", include_str!("../../packaging/man/claude-peers-mcp.1")),
];
const PLACE_OF_SETTINGS: &str = ".\\\" SETTINGS\n";
const SETTINGS: &str = include_str!("../../packaging/man/settings.md");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write the pages to; created if it is missing
    #[arg(required_unless_present = "settings")]
    pub dir: Option<PathBuf>,
    /// Print the page of all settings instead
    #[arg(long, conflicts_with = "dir")]
    pub settings: bool,
}

pub fn run(args: &Args, cli: Command, out: Out) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        let page = format!("{SETTINGS}{}", settings::ALL.iter().map(row).collect::<String>());
        return out.answer(&json!({ "page": page }), |_, _| page.clone());
    };
    let failed = |path: &Path, error: &io::Error| {
        Failure::local(format!("writing {}: {error}", path.display()), "name a folder that you can write to")
    };
    fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    let mut pages = Vec::new();
    for (name, page) in all(cli).map_err(|e| failed(dir, &e))? {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|e| failed(&path, &e))?;
        pages.push(path.display().to_string());
    }
    out.answer(&json!({ "pages": pages }), |_, _| pages.join("\n") + "\n")
}

fn all(cli: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    // `help` explains the others and needs no page of its own.
    let mut cli = cli.disable_help_subcommand(true).subcommand_help_heading("COMMANDS").subcommand_value_name("COMMAND");
    cli.build();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let mut pages = std::iter::once(&cli).chain(commands).map(page).collect::<io::Result<Vec<_>>>()?;
    pages.extend(OTHERS.map(|(program, page)| {
        let settings: String = settings::of(program).map(entry).collect();
        (format!("{program}.1"), page.replacen(PLACE_OF_SETTINGS, &settings, 1).into_bytes())
    }));
    Ok(pages)
}

/// A setting as a row of the page of all settings.
fn row(Setting { name, readers, default, kind, help, more }: &Setting) -> String {
    let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
    let text = format!("{help}. {more}");
    format!("| `{name}` | {default} | {kind} | `{}` | {} |\n", readers.join("`, `"), text.trim_end())
}

/// A setting as an entry of a man page.
fn entry(Setting { name, default, kind, help, more, .. }: &Setting) -> String {
    let default = if default.is_empty() { String::new() } else { format!("Default: {default}.\n") };
    let text = format!("{help}.\nAllowed: {kind}.\n{default}{more}").replace('`', "").replace('-', "\\-");
    format!(".TP\n.B {name}\n{}\n", text.trim_end())
}

fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command.clone()).source(format!("claude-peers {}", crate::wire::VERSION)).manual("claude-peers");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    page.write_all(b".nh\n")?; // what people copy is not hyphenated
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    for (title, lines) in sections(&command.get_after_help().map(ToString::to_string).unwrap_or_default()) {
        let mut section = Roff::new();
        section.control("SH", [title.as_str()]).control("nf", []);
        for line in lines {
            section.text([roman(line)]);
        }
        section.control("fi", []);
        section.to_writer(&mut page)?;
    }
    page.write_all(b".SH SEE ALSO\n.BR claude\\-peers (1),\n.BR claude\\-peersd (1),\n.BR claude\\-peers\\-mcp (1)\n")?;
    Ok((man.get_filename(), page))
}

/// The sections below the options in `--help`. A heading is a line that ends in a colon; its text is indented below it.
fn sections(after_help: &str) -> Vec<(String, Vec<String>)> {
    let mut sections = vec![("NOTES".to_owned(), Vec::new())];
    for line in after_help.lines() {
        if let Some(title) = line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            let title = if title == "Exit codes" { "EXIT STATUS".to_owned() } else { title.to_uppercase() };
            sections.push((title, Vec::new()));
        } else if let Some((_, lines)) = sections.last_mut() {
            lines.push(line.strip_prefix("  ").unwrap_or(line).to_owned());
        }
    }
    for (_, lines) in &mut sections {
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
    }
    sections.retain(|(_, lines)| !lines.is_empty());
    sections
}
