//! How many connections there is room for: a bound of our own, or what the system's limit on open files leaves.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most open connections on each socket: far more than a user has sessions, and each costs some 20 KiB.
const MOST: u64 = 1_024;
/// Open files that are no connection: the database, its readers, what is just being refused.
const OTHERS: u64 = 128;

/// Raises this process's limit on open files as far as it needs and may, and says how many connections each of the two
/// sockets can have at once. Where the limit is low, those who come too late are told so instead of waiting for ever.
pub(super) fn each() -> usize {
    let wanted = 2 * MOST + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut files = current.unwrap_or(wanted);
    let possible = maximum.unwrap_or(wanted).min(wanted);
    if files < possible {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(possible), maximum }) {
            Ok(()) => files = possible,
            Err(error) => tracing::warn!(%error, files, "the limit on open files stays as it is"),
        }
    }
    let each = (files.saturating_sub(OTHERS) / 2).clamp(1, MOST);
    usize::try_from(each).unwrap_or(usize::MAX)
}
