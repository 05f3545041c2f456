//! The automatic summary, made once after the session has registered. The first comes from git's facts. If `OPENAI_API_KEY` is
//! set and may be used, `claude-peers summarize` then generates another; a separate program keeps this process small. The broker lets neither
//! replace the session's own summary. Failures are only logged.

use super::{
    facts::in_time,
    link::{AT_ONCE, Link, mends_itself},
    log,
};
use crate::{
    platform::{git, settings},
    wire::{MAX_SUMMARY, SetSummary, Summary, SummaryFacts, SummarySource, text::printable_line},
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    fs, io,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long a `git` command may take.
const GIT_PATIENCE: Duration = Duration::from_secs(5);
/// The variables that name a repository. An agent that was started by a hook of git has them, and works in another directory.
const OF_ANOTHER: [&str; 6] =
    ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"];
/// How long the generated summary may take.
const GENERATE_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before the broker is asked again to store a summary.
const PAUSE: Duration = Duration::from_millis(100);
/// Settings that keep git from starting programs that a repository names.
const QUIET: [&str; 3] = ["core.fsmonitor=false", "core.hooksPath=/dev/null", "log.showSignature=false"];
/// Most bytes read of a child's output.
const MAX_OUTPUT: u64 = 64 * 1024;
/// Most names in a list of facts.
const MAX_NAMES: usize = 30;
/// Most commits looked at.
const COMMITS: &str = "10";
/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 2_000;
/// How many files a local summary names.
const NAMED_FILES: usize = 3;

/// Files that show what kind of project a directory holds.
const PROJECTS: [(&str, &str); 13] = [
    ("Cargo.toml", "rust"),
    ("tsconfig.json", "typescript"),
    ("package.json", "javascript"),
    ("pyproject.toml", "python"),
    ("requirements.txt", "python"),
    ("setup.py", "python"),
    ("go.mod", "go"),
    ("pom.xml", "java"),
    ("build.gradle", "java"),
    ("Gemfile", "ruby"),
    ("composer.json", "php"),
    ("mix.exs", "elixir"),
    ("CMakeLists.txt", "c++"),
];

/// Makes the session's summary, unless the broker has a better one from before.
pub async fn run(link: Arc<Link>) {
    let Ok(up) = link.served().await else { return };
    if up.me.summary_source > SummarySource::Local {
        return;
    }
    let Ok(cwd) = std::env::current_dir() else { return }; // already reported by the registration
    let facts = facts(&cwd).await;
    apply(&link, local(&facts), SummarySource::Local).await;
    if may_generate(&link)
        && let Some(summary) = logged("generating a summary", generate(&facts).await)
    {
        apply(&link, summary, SummarySource::Generated).await;
    }
}

/// Whether the key may be used. In another client than Claude Code it may be that client's own.
fn may_generate(link: &Link) -> bool {
    let is_wanted = || logged("generating a summary", settings::SUMMARY.text()).is_some_and(|choice| choice == "openai");
    settings::raw(settings::OPENAI_KEY.name).is_some() && (link.client().is_claude_code() || is_wanted())
}

async fn apply(link: &Link, summary: String, source: SummarySource) {
    let summary = summary.chars().take(MAX_SUMMARY).collect();
    let set = SetSummary { summary, source };
    while let Ok(up) = link.served().await {
        match up.post::<Summary>("/v1/set-summary", &set, AT_ONCE).await {
            Err(error) if mends_itself(&error) => sleep(PAUSE).await,
            answer => return drop(logged("setting the summary", answer)),
        }
    }
}

fn logged<T, E: std::fmt::Display>(doing: &str, done: Result<T, E>) -> Option<T> {
    done.inspect_err(|error| log!("{doing}: {error}")).ok()
}

async fn facts(cwd: &Path) -> SummaryFacts {
    let mut facts = SummaryFacts { cwd: printable_line(&cwd.to_string_lossy()).into_owned(), ..SummaryFacts::default() };
    let directory = cwd.to_owned();
    let looked = in_time(move || (entries(&directory), git::discover(&directory))).await;
    let (entries, git) = looked.unwrap_or_else(|| {
        log!("reading the working directory takes too long");
        (Vec::new(), None)
    });
    facts.structure = entries.iter().map(|(name, _)| name.clone()).take(MAX_NAMES).collect();
    let has = |file: &str| entries.iter().any(|(name, _)| name == file);
    facts.project = PROJECTS.iter().find(|(file, _)| has(file)).map(|(_, project)| (*project).to_owned());
    if let Some(git) = git {
        facts.branch = git.branch;
        if let Err(error) = ask_git(cwd, &mut facts).await {
            log!("{error}"); // as in a repository without commits
        }
    } else {
        let mut files: Vec<_> = entries.into_iter().filter(|(name, _)| !name.ends_with('/')).collect();
        files.sort_by_key(|(_, modified)| std::cmp::Reverse(*modified));
        facts.files = files.into_iter().map(|(name, _)| name).collect();
    }
    facts.files.truncate(MAX_NAMES);
    for text in facts.commits.iter_mut().chain(&mut facts.files).chain(&mut facts.structure) {
        *text = printable_line(text).into_owned();
    }
    facts
}

/// The visible entries of a directory, each with the time of its last change. Directories end in `/`.
fn entries(directory: &Path) -> Vec<(String, Option<SystemTime>)> {
    let entry = |entry: fs::DirEntry| {
        let mut name = entry.file_name().to_string_lossy().into_owned();
        let meta = entry.metadata().ok()?;
        if meta.is_dir() {
            name.push('/');
        }
        (!name.starts_with('.')).then(|| (name, meta.modified().ok()))
    };
    let read = logged("reading the working directory", fs::read_dir(directory)).into_iter().flatten();
    let mut entries: Vec<_> = read.take(MAX_ENTRIES).filter_map(|read| entry(read.ok()?)).collect();
    entries.sort();
    entries
}

/// Adds the changed files and the last commits.
async fn ask_git(cwd: &Path, facts: &mut SummaryFacts) -> io::Result<()> {
    let one = ["filter.none.clean=".to_owned()]; // git fails if it finds none
    let filters = run_git(cwd, &one, &["config", "--name-only", "-z", "--get-regexp", r"^filter\."]).await?;
    let no_filters = no_filters(&filters)?;
    let status = run_git(cwd, &no_filters, &["status", "--porcelain", "-z", "--ignore-submodules=dirty"]).await?;
    facts.files = changed_files(&status);
    facts.uncommitted = facts.files.len();
    let log = ["log", "-n", COMMITS, "-z", "--no-renames", "--name-only", "--format=%x01%s"];
    read_log(&run_git(cwd, &no_filters, &log).await?, facts);
    Ok(())
}

/// Settings for `git -c` that turn off the filters in these repository settings. Fails if a filter would stay on.
fn no_filters(keys: &str) -> io::Result<Vec<String>> {
    // `-c` ends a name at its first `=`.
    if keys.len() as u64 >= MAX_OUTPUT || keys.contains(['=', char::REPLACEMENT_CHARACTER]) {
        return Err(io::Error::other("git is not asked, because the repository's filters cannot be turned off"));
    }
    let off = |key: &str| format!("{key}={}", if key.ends_with(".required") { "false" } else { "" });
    Ok(keys.split_terminator('\0').map(off).collect())
}

/// The output of a read-only `git` command. Whatever the repository configures, git takes no lock, prompts nobody and fetches
/// nothing. It starts no pager, hook, file-system monitor or signature check.
async fn run_git(cwd: &Path, no_filters: &[String], arguments: &[&str]) -> io::Result<String> {
    let mut git = Command::new("git");
    let settings = QUIET.iter().copied().chain(no_filters.iter().map(String::as_str));
    git.arg("--no-pager").args(settings.flat_map(|setting| ["-c", setting])).args(arguments).current_dir(cwd);
    for variable in OF_ANOTHER {
        git.env_remove(variable);
    }
    git.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_TERMINAL_PROMPT", "0").stderr(Stdio::null());
    git.env("GIT_NO_LAZY_FETCH", "1").env("GIT_ALLOW_PROTOCOL", ""); // versions before 2.45 know only the latter
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("git {}: {error}", arguments[0]));
    output(git, &[], GIT_PATIENCE).await.map_err(failed)
}

async fn generate(facts: &SummaryFacts) -> io::Result<String> {
    let program = std::env::current_exe()?.with_file_name("claude-peers");
    let mut command = Command::new(&program);
    command.arg("summarize"); // inherits stderr, which is the log
    let summary = output(command, &serde_json::to_vec(facts)?, GENERATE_PATIENCE).await;
    let summary = summary.map_err(|error| io::Error::new(error.kind(), format!("{} summarize: {error}", program.display())))?;
    match summary.trim() {
        "" => Err(io::Error::other("the summary is empty")),
        summary => Ok(summary.to_owned()),
    }
}

/// Sends `input` to a command and reads at most [`MAX_OUTPUT`] of its output. The command and its children end with this call.
async fn output(mut command: Command, input: &[u8], patience: Duration) -> io::Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut group = Group(command.spawn()?);
    let run = async {
        if let Some(mut stdin) = group.0.stdin.take() {
            stdin.write_all(input).await?;
        }
        let mut output = Vec::new();
        if let Some(stdout) = group.0.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        let is_cut = output.len() as u64 == MAX_OUTPUT;
        if !is_cut
            && let status = group.0.wait().await?
            && !status.success()
        {
            return Err(io::Error::other(format!("it failed ({status})")));
        }
        Ok(String::from_utf8_lossy(&output).into_owned())
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()));
    timeout(patience, run).await.unwrap_or_else(|_| Err(late()))
}

/// A process in its own process group; dropping this ends the group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Once the process has been waited for, it has no id and there is nothing to end.
        if let Some(group) = self.0.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            let _ = kill_process_group(group, Signal::KILL); // it may have ended by now
        }
    }
}

/// The paths of `git status --porcelain -z`: `XY path`, and after a rename or copy the old path as an entry of its own.
fn changed_files(status: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut entries = status.split_terminator('\0');
    while let Some(entry) = entries.next() {
        let (Some(state), Some(path)) = (entry.get(..2), entry.get(3..)) else { continue };
        files.push(path.to_owned());
        if state.contains(['R', 'C']) {
            entries.next();
        }
    }
    files
}

/// Subjects (behind a byte 1) and files of `git log`.
fn read_log(log: &str, facts: &mut SummaryFacts) {
    for entry in log.split(['\0', '\n']).filter(|entry| !entry.is_empty()) {
        if let Some(subject) = entry.strip_prefix('\u{1}') {
            facts.commits.push(subject.to_owned());
        } else if !facts.files.iter().any(|file| file == entry) {
            facts.files.push(entry.to_owned());
        }
    }
}

/// A summary in words, made locally.
fn local(facts: &SummaryFacts) -> String {
    let place = Path::new(&facts.cwd).file_name().map_or(facts.cwd.as_str().into(), |name| name.to_string_lossy());
    let project = facts.project.as_ref().map(|project| format!(" ({project})")).unwrap_or_default();
    let branch = facts.branch.as_ref().map(|branch| format!(" on branch {branch}")).unwrap_or_default();
    let mut summary = format!("In {place}{project}{branch}.");
    if let Some(subject) = facts.commits.first() {
        summary += &format!(" Last commit: {}.", subject.trim_end_matches('.'));
    }
    if facts.uncommitted > 0 {
        let named = facts.uncommitted.min(NAMED_FILES).min(facts.files.len());
        let more = if facts.uncommitted > named { ", …" } else { "" };
        let files = if facts.uncommitted == 1 { "file" } else { "files" };
        summary += &format!(" {} {files} changed: {}{more}.", facts.uncommitted, facts.files[..named].join(", "));
    }
    printable_line(&summary).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_bounded_in_output_and_time() {
        let run = async |script: &str, patience| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            output(command, &[], patience).await
        };
        assert_eq!(run("yes", GIT_PATIENCE).await.expect("cut").len() as u64, MAX_OUTPUT);
        assert!(run("exit 3", GIT_PATIENCE).await.is_err());
        let late = run("sleep 60; exit", Duration::from_millis(50)).await.expect_err("too late");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
