//! Every command has a man page that matches `--help`.

use crate::support::folder;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

const CLI: &str = env!("CARGO_BIN_EXE_claude-peers");
const BROKER: &str = env!("CARGO_BIN_EXE_claude-peersd");

/// The output of a program, which must succeed.
fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The entries below a heading of `--help`: first word and the rest.
fn listed(help: &str, heading: &str) -> BTreeMap<String, String> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| line.starts_with("  "));
    let mut entries = BTreeMap::new();
    for line in lines.filter(|line| !line.starts_with("   ")) {
        let (name, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        entries.insert(name.to_owned(), rest.trim().to_owned());
    }
    assert!(!entries.is_empty(), "{heading} has no entries in: {help}");
    entries
}

/// The visible commands.
fn commands() -> BTreeSet<String> {
    listed(&says(CLI, &["--help"]), "Commands:").into_keys().filter(|command| command != "help").collect()
}

/// A page's text without the escapes of its source.
fn page(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-")
}

#[test]
fn every_command_has_a_page() {
    let place = folder();
    let pages = place.path().join("man");
    says(CLI, &["manual", pages.to_str().unwrap()]);

    let written: BTreeSet<_> =
        fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    let mut expected: BTreeSet<_> = commands().iter().map(|command| format!("claude-peers-{command}.1")).collect();
    assert!(expected.insert("claude-peers-mcp.1".to_owned()), "a command has the name of a program");
    expected.extend(["claude-peers.1", "claude-peersd.1"].map(str::to_owned));
    assert_eq!(written, expected);

    for name in written {
        let text = page(&pages, &name);
        let title = name.strip_suffix(".1").unwrap();
        assert!(text.contains(&format!(".TH {title} 1 ")) && text.contains(&format!("\n{title} - ")), "{name}: {text}");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
            assert!(
                text.contains(&format!(".SH {section}\n")) || text.contains(&format!(".SH \"{section}\"\n")),
                "{name}: {section}"
            );
        }
    }
    let main = page(&pages, "claude-peers.1");
    for words in ["\nclaude-peers peers --scope repo\n", "$XDG_RUNTIME_DIR/claude-peers/broker.sock", ".SH \"EXIT STATUS\"\n"] {
        assert!(main.contains(words), "{words}: {main}");
    }
}

/// The page is written by hand, except for its settings, and must match `--help` both ways.
#[test]
fn page_of_the_broker_matches_its_help() {
    let place = folder();
    says(CLI, &["manual", place.path().to_str().unwrap()]);
    let (page, help) = (page(place.path(), "claude-peersd.1"), says(BROKER, &["--help"]));

    let section = |name: &str| {
        let (_, rest) = page.split_once(&format!(".SH {name}\n")).unwrap();
        let text = format!("\n{}", rest.split("\n.SH ").next().unwrap());
        let entries = text.split("\n.TP\n.B ").skip(1).map(|entry| {
            let (name, text) = entry.split_once('\n').unwrap();
            (name.to_owned(), text.to_owned())
        });
        entries.collect::<BTreeMap<_, _>>()
    };
    let (documented, real) = (section("ENVIRONMENT"), listed(&help, "Environment:"));
    assert_eq!(documented.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    let (documented, real) = (section("EXIT STATUS"), listed(&help, "Exit codes:"));
    assert_eq!(documented.keys().collect::<Vec<_>>(), real.keys().collect::<Vec<_>>());
    for (code, words) in real {
        assert!(documented[&code].to_lowercase().contains(&words.to_lowercase()), "{code}: {words}: {}", documented[&code]);
    }
}

#[test]
fn settings_page_is_made_from_the_table() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md")).unwrap();
    assert_eq!(page, says(CLI, &["manual", "--settings"]), "run `claude-peers manual --settings >docs/settings.md`");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned());
    let rows: BTreeSet<_> = rows.collect();
    for program in [CLI, BROKER] {
        let help = listed(&says(program, &["--help"]), "Environment:");
        assert!(help.keys().all(|name| name.starts_with("claude-peersd(1)") || rows.contains(name)), "{help:?}");
    }
}

/// dpkg runs them with /bin/sh, and a mistake would abort the installation.
#[test]
fn maintainer_scripts_are_one_valid_script() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb/scripts");
    let postinst = fs::read_to_string(scripts.join("postinst")).unwrap();
    for name in ["prerm", "postrm"] {
        assert_eq!(fs::read_to_string(scripts.join(name)).unwrap(), postinst, "{name}");
    }
    says("sh", &["-n", scripts.join("postinst").to_str().unwrap()]);
    says("bash", &["-n", scripts.join("../build").to_str().unwrap()]);
}
