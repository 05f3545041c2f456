//! `manual`: writes the man pages, one per command from its `--help` and one for each of the two other programs, or prints
//! `docs/settings.md`. Packagers call this and nothing else, so no page can say anything but `--help`.

use super::args::Cli;
use crate::{
    console::{exit::Failure, out::Out},
    platform::settings::{self, Setting},
};
use clap::{Command, CommandFactory};
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

/// The pages of the programs whose `--help` the command line cannot see. A comment holds the place of their settings.
const OTHERS: [(&str, &str); 2] = [
    ("claude-peersd", include_str!("../../packaging/man/claude-peersd.1")),
    ("claude-peers-mcp", include_str!("../../packaging/man/claude-peers-mcp.1")),
];
const PLACE_OF_SETTINGS: &str = ".\\\" SETTINGS\n";
const SETTINGS: &str = "\
# Settings

Settings are environment variables. An empty variable counts as not set. A value that cannot be used is an error that names the
variable, the value and what is allowed.

The broker usually runs as a service, and a service does not see what a shell sets. To change one of its settings, run
`systemctl --user edit claude-peers`, write the variable under `[Service]`, and restart the broker:

```ini
[Service]
Environment=CLAUDE_PEERS_EXPIRY=14d
```

This page is made by `claude-peers manual --settings` from the table in `src/platform/settings.rs`.

| variable | default | allowed | read by | meaning |
|---|---|---|---|---|
";

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that the pages are written to; made if it is not there
    #[arg(required_unless_present = "settings")]
    pub dir: Option<PathBuf>,
    /// Print the page of all settings instead
    #[arg(long, conflicts_with = "dir")]
    pub settings: bool,
}

pub fn run(args: &Args, out: Out) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        let rows: String = settings::ALL.iter().map(row).collect();
        return out.answer(&json!({ "page": format!("{SETTINGS}{rows}") }), |page, _| {
            page["page"].as_str().unwrap_or_default().to_owned()
        });
    };
    let failed = |path: &Path, error: &io::Error| {
        Failure::local(format!("writing {}: {error}", path.display()), "name a folder that you can write to")
    };
    fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    let mut pages = Vec::new();
    for (name, page) in all().map_err(|e| failed(dir, &e))? {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|e| failed(&path, &e))?;
        pages.push(path.display().to_string());
    }
    out.answer(&json!({ "pages": pages }), |_, _| pages.join("\n") + "\n")
}

fn all() -> io::Result<Vec<(String, Vec<u8>)>> {
    // `help` explains the others and needs no page of its own.
    let mut cli =
        Cli::command().disable_help_subcommand(true).subcommand_help_heading("COMMANDS").subcommand_value_name("COMMAND");
    cli.build();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let mut pages = std::iter::once(&cli).chain(commands).map(page).collect::<io::Result<Vec<_>>>()?;
    pages
        .extend(OTHERS.map(|(program, page)| {
            (format!("{program}.1"), page.replacen(PLACE_OF_SETTINGS, &entries(program), 1).into_bytes())
        }));
    Ok(pages)
}

/// A setting's row in the page of all settings.
fn row(setting: &Setting) -> String {
    let Setting { name, readers, default, kind, help, more } = setting;
    let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
    let readers: Vec<_> = readers.iter().map(|program| format!("`{program}`")).collect();
    let more = if more.is_empty() { String::new() } else { format!(". {more}") };
    format!("| `{name}` | {default} | {kind} | {} | {help}{more} |\n", readers.join(", "))
}

/// The settings of a program as entries of its man page.
fn entries(program: &str) -> String {
    let entry = |Setting { name, default, kind, help, more, .. }: &Setting| {
        let text = format!(
            "Allowed: {kind}.\n{}{more}",
            if default.is_empty() { String::new() } else { format!("Default: {default}.\n") }
        );
        let (first, rest) = help.split_at(1);
        let text = format!("{}{rest}.\n{}", first.to_uppercase(), text.trim_end()).replace('\\', "\\\\").replace('-', "\\-");
        format!(".TP\n.B {name}\n{}\n", text.replace('`', ""))
    };
    settings::ALL.iter().filter(|setting| setting.readers.contains(&program)).map(entry).collect()
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

/// What stands below the options in `--help`, by its headings: a line that ends in a colon, its text indented below it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_the_options_becomes_sections() {
        let sections = sections("First of all.\n\nExamples:\n  claude-peers peers\n    --json\n\nExit codes:\n  0  success\n");
        let expected = [
            ("NOTES", vec!["First of all."]),
            ("EXAMPLES", vec!["claude-peers peers", "  --json"]),
            ("EXIT STATUS", vec!["0  success"]),
        ];
        let expected: Vec<_> =
            expected.map(|(title, lines)| (title.to_owned(), lines.into_iter().map(str::to_owned).collect::<Vec<_>>())).into();
        assert_eq!(sections, expected);
    }
}
