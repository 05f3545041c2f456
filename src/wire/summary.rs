use super::define::object;

/// Longest summary that the broker takes, in characters.
pub const MAX_SUMMARY: usize = 1_000;

object! {
    /// What a summary is made from. Names only: the contents of files are never part of it.
    #[derive(Default)]
    #[serde(default)]
    pub struct SummaryFacts {
        pub cwd: String,
        /// The current git branch; none without a repository or with a detached head.
        pub branch: Option<String>,
        /// The subjects of the last commits, newest first.
        pub commits: Vec<String>,
        /// Files changed or modified recently, as relative paths: uncommitted ones first.
        pub files: Vec<String>,
        /// How many of `files` are uncommitted changes.
        pub uncommitted: usize,
        /// The kind of project, such as `rust`.
        pub project: Option<String>,
        /// The names at the top of the working directory; directories end in `/`.
        pub structure: Vec<String>,
    }
}
