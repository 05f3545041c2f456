//! A release server: its newest release, and the archive.
//!
//! Every archive that leaves this module has the release's checksum and a trusted key's signature for its name. Every answer is
//! bounded in time and size.

use super::keys::{self, Key};
use crate::{console::Failure, platform::settings};
use self_update::{Checksum, Download, Error, Release, ReleaseAsset, backends::github, http::header, http_client::HeaderMap};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// A slow line needs minutes for an archive.
const DOWNLOAD_PATIENCE: Duration = Duration::from_secs(900);
/// Ten times a real archive.
const MAX_ARCHIVE: u64 = 100 * 1024 * 1024;
const MAX_SUMS: u64 = 64 * 1024;
/// The file with the checksums of a release's archives.
const SUMS: &str = "SHA256SUMS";
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const UNTOUCHED: &str = "nothing was changed; please tell the people who run the release server";

pub struct Server {
    /// The base of its API; none for GitHub's.
    base: Option<String>,
    /// Never empty: the library would accept any archive.
    keys: Vec<Key>,
}

pub fn base(text: &str) -> Result<String, String> {
    const ALLOWED: &str = "the address of a release server is an http or https URL without user, password and query";
    let uri = settings::web_address(text.trim_end_matches('/'));
    let uri = uri.filter(|uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@')));
    uri.map(|uri| uri.to_string().trim_end_matches('/').to_owned()).ok_or_else(|| ALLOWED.to_owned())
}

impl Server {
    /// By default GitHub and the built-in keys.
    pub fn new(base: Option<String>, key: Option<&Path>) -> Result<Self, Failure> {
        let keys = key.map_or_else(|| Ok(keys::BUILT_IN.to_vec()), |path| read_key(path).map(|key| vec![key]))?;
        Ok(Self { base, keys })
    }

    pub fn name(&self) -> String {
        self.base.clone().unwrap_or_else(|| REPOSITORY.to_owned())
    }

    pub fn release(&self, version: Option<&str>) -> Result<Release, Failure> {
        let name = self.name();
        let none = || {
            let wanted = version.map(|version| format!(" {version}")).unwrap_or_default();
            Failure::local(format!("{name} has no release{wanted}"), "`claude-peers update --check` shows the newest")
        };
        let broken = |e: Error| match e {
            Error::NotFound { .. } => none(),
            e => Failure::local(format!("asking {name} for a release: {}", words(&e)), "check the network, or try again later"),
        };
        let path = REPOSITORY.strip_prefix("https://github.com/").and_then(|path| path.split_once('/'));
        let (owner, repository) = path.ok_or_else(|| Failure::local(format!("{REPOSITORY} is not on GitHub"), "use --from"))?;
        let mut builder = github::Update::configure();
        builder.repo_owner(owner).repo_name(repository).bin_name("claude-peers").current_version(crate::wire::VERSION);
        builder.timeout(PATIENCE);
        if let Some(base) = &self.base {
            builder.api_base_url(base);
        }
        let backend = builder.build().map_err(broken)?;
        let release = match version {
            Some(version) => backend.get_release_version(&format!("v{version}")).map(Some),
            None => backend.get_latest_release().map(|releases| releases.latest().cloned()),
        };
        let release = release.map_err(broken)?.ok_or_else(none)?;
        if version.is_some_and(|version| version != release.version()) {
            let what = format!("{name} offers release {} instead of the one asked for", release.version());
            return Err(Failure::local(what, UNTOUCHED));
        }
        Ok(release)
    }

    /// Downloads and verifies the archive for this kind of machine.
    pub fn fetch(&self, release: &Release, folder: &Path) -> Result<PathBuf, Failure> {
        let (target, version) = (self_update::get_target(), release.version());
        let asset = |name: &str, what: &str, help: &str| {
            let lacks = || Failure::local(format!("release {version} of {} has no {what}", self.name()), help);
            release.assets().iter().find(|asset| asset.name() == name).ok_or_else(lacks)
        };
        let name = format!("claude-peers-{version}-{target}.tar.gz");
        let source = concat!("build it from source: ", env!("CARGO_PKG_REPOSITORY"));
        let archive = asset(&name, &format!("archive for this kind of machine, {target}"), source)?;
        let sums = asset(SUMS, &format!("file {SUMS}"), UNTOUCHED)?;
        let sums = read(&download(sums, MAX_SUMS, folder)?)?;
        let path = download(archive, MAX_ARCHIVE, folder)?;
        check_sum(&path, &name, &String::from_utf8_lossy(&sums))?;
        self_update::verify_signature(&path, &self.keys).map_err(|e| {
            Failure::local(format!("{name} is not signed by a key that this program trusts: {}", words(&e)), UNTOUCHED)
        })?;
        Ok(path)
    }
}

fn read_key(path: &Path) -> Result<Key, Failure> {
    let bytes = fs::read(path).map_err(|e| Failure::usage(format!("reading the key {}: {e}", path.display())))?;
    let wrong = format!("{} is not a public key: it has {} bytes, not 32", path.display(), bytes.len());
    bytes.try_into().map_err(|_| Failure::usage(wrong))
}

/// Keeps the asset's name, which the signature covers.
fn download(asset: &ReleaseAsset, limit: u64, folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join(asset.name());
    let file = fs::File::create_new(&path).map_err(|e| Failure::io("making", &path, &e, UNTOUCHED))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/octet-stream"));
    let mut download = Download::from_url(asset.download_url());
    download.replace_headers(headers).timeout(DOWNLOAD_PATIENCE).max_download_size(limit);
    download.download_to(file).map_err(|e| {
        let help = "nothing was changed; check the network and the space on this disk, or try again later";
        Failure::local(format!("downloading {}: {}", asset.name(), words(&e)), help)
    })?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = path.file_name().unwrap_or_default().display();
    fs::read(path).map_err(|e| Failure::local(format!("reading {name}, just downloaded: {e}"), UNTOUCHED))
}

fn check_sum(path: &Path, name: &str, sums: &str) -> Result<(), Failure> {
    let Ok(Checksum::Sha256(stated)) = Checksum::from_sums_file(sums, name) else {
        return Err(Failure::local(format!("{SUMS} of the release lists no SHA-256 of {name}"), UNTOUCHED));
    };
    let found: String = Sha256::digest(read(path)?).iter().map(|byte| format!("{byte:02x}")).collect();
    if found.eq_ignore_ascii_case(&stated) {
        return Ok(());
    }
    let what = format!("the checksum of {name} is {found}, not {stated} as the release says");
    Err(Failure::local(what, "nothing was changed; the download may have been cut short: try again"))
}

/// The library's message with its causes, without the name of its kind (`IoError: `).
pub fn words(error: &Error) -> String {
    let mut words = error.to_string();
    let mut causes = std::iter::successors(std::error::Error::source(error), |error| error.source()).map(ToString::to_string);
    while let Some(cause) = causes.find(|cause| !words.contains(cause)) {
        words += &format!(": {cause}");
    }
    match words.split_once("Error: ") {
        Some((kind, rest)) if kind.chars().all(|c| c.is_ascii_alphanumeric()) => rest.to_owned(),
        _ => words,
    }
}
