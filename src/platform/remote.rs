//! Where a repository comes from, as one text for every way to write its URL.
//!
//! `git@host:a/b.git`, `ssh://git@host:2222/a/b` and `https://user:token@host/a/b.git` are all `host/a/b`: what differs is how one gets in,
//! which is nobody's business. Scheme, user, password, port and query are left out. A URL that means something on this machine alone
//! (a path, `localhost`) has no such text. The configuration is read as git writes it; `include` and `insteadOf` are not followed.

use super::files;
use std::{net::IpAddr, path::Path};

/// The largest configuration file that is read.
const MAX_CONFIG: u64 = 256 * 1024;
/// The schemes of URLs that name a host.
const SCHEMES: [&str; 8] = ["https", "http", "ssh", "git", "git+ssh", "ssh+git", "ftp", "ftps"];

/// Where the repository with this common git directory comes from: from `origin`, or from its only remote.
pub fn source(common_dir: &Path) -> Option<String> {
    let config = files::read_own(&common_dir.join("config"), MAX_CONFIG).ok()?;
    let remotes = remotes(std::str::from_utf8(&config).ok()?);
    let (first, _) = remotes.first()?;
    let is_only = remotes.iter().all(|(name, _)| name == first);
    let (_, url) = remotes.iter().find(|(name, _)| is_only || name == "origin")?;
    normalized(url)
}

/// The URLs in a configuration file, each with the name of its remote.
fn remotes(config: &str) -> Vec<(String, String)> {
    let (mut remotes, mut section) = (Vec::new(), None);
    for line in config.lines() {
        let mut line = line.trim();
        if let Some(head) = line.strip_prefix('[') {
            (section, line) = remote_in(head);
        }
        let url = line.split_once('=').filter(|(key, _)| key.trim().eq_ignore_ascii_case("url"));
        if let (Some(name), Some((_, url))) = (&section, url) {
            remotes.push((String::clone(name), value(url.trim())));
        }
    }
    remotes
}

/// The name of the remote in the head of its section (`remote "origin"]`), and what follows the head.
fn remote_in(head: &str) -> (Option<String>, &str) {
    let after = |rest: &'_ str| rest.find(']').map_or(rest.len(), |at| at + 1);
    let Some((word, quoted)) = head.split_once('"').filter(|(word, _)| !word.contains(']')) else {
        return (None, &head[after(head)..]);
    };
    let (mut name, mut is_escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => {
                let rest = &quoted[at..];
                return (word.trim().eq_ignore_ascii_case("remote").then_some(name), &rest[after(rest)..]);
            }
            c => {
                name.push(c);
                is_escaped = false;
            }
        }
    }
    (None, "")
}

/// A value without its quotes, escapes and comment.
fn value(written: &str) -> String {
    let (mut value, mut is_quoted, mut is_escaped) = (String::new(), false, false);
    for c in written.chars() {
        match c {
            '\\' if !is_escaped => is_escaped = true,
            '"' if !is_escaped => is_quoted = !is_quoted,
            '#' | ';' if !is_quoted && !is_escaped => break,
            c => {
                value.push(c);
                is_escaped = false;
            }
        }
    }
    value.trim_end().to_owned()
}

/// `host/path` of a URL that means the same on every machine.
fn normalized(url: &str) -> Option<String> {
    let (authority, path) = match url.split_once("://") {
        Some((scheme, rest)) if SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
            rest.split(['?', '#']).next()?.split_once('/')?
        }
        Some(_) => return None,
        None => short(url)?,
    };
    let host = host(authority)?;
    let path: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let path = path.join("/");
    let path = path.strip_suffix(".git").unwrap_or(&path);
    (!path.is_empty()).then(|| format!("{host}/{path}"))
}

/// Host and path of ssh's short form: `git@host:path`, or `[git@host:port]:path`.
fn short(url: &str) -> Option<(&str, &str)> {
    let (authority, path) = match url.find("]:") {
        Some(end) => (&url[..=end], &url[end + 2..]),
        None => url.split_once(':')?,
    };
    // `transport::address` names a program of git's, and a path may have a colon.
    (!authority.contains('/') && !path.starts_with(':')).then_some((authority, path))
}

/// The host in `user:password@host:port`, unless it is this machine.
fn host(authority: &str) -> Option<String> {
    let inside = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    let host = inside.rsplit('@').next()?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None if host.matches(':').count() == 1 => host.split(':').next()?,
        None => host,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_here = match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host.is_empty() || host == "localhost" || host.ends_with(".localhost"),
    };
    (!is_here).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn secrets_of_a_url_are_left_out(user in "[a-z]{1,8}", password in "[A-Z0-9]{8,20}", port in 1_u16..) {
            let same = Some("host.example/a/b".to_owned());
            prop_assert_eq!(normalized(&format!("https://{user}:{password}@host.example:{port}/a/b.git?key={password}")), same.clone());
            prop_assert_eq!(normalized(&format!("https://{password}@host.example/a/b/")), same);
        }

        #[test]
        fn any_text_is_read_without_a_panic(config in any::<String>(), url in any::<String>(), name in "[\\[\\]\"@:/.\\\\a]{0,12}") {
            drop((remotes(&config), remotes(&format!("[remote {name}\nurl={name}")), normalized(&url), normalized(&name)));
        }
    }
}
