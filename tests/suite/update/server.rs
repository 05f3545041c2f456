//! A release server on loopback that makes and signs its own releases.

use crate::support::{PATIENCE, http::read_head};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    io::{BufReader, Cursor, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};
use tar::{Builder, EntryType, Header};
use zipsign_api::{SigningKey, sign::copy_and_sign_tar};

/// The three programs of a release.
pub const PROGRAMS: [&str; 3] = ["claude-peers", "claude-peersd", "claude-peers-mcp"];
/// A version newer than any real one.
pub const NEWER: &str = "99.9.9";

/// The archive's name for this platform.
pub fn archive_name(version: &str) -> String {
    format!("claude-peers-{version}-{}.tar.gz", self_update::get_target())
}

/// An archive entry: its name, its kind, and its content or link target.
pub struct Entry(pub String, pub EntryType, pub Vec<u8>);

/// A program that only prints its version.
pub fn program(name: &str, version: &str) -> Entry {
    Entry(name.to_owned(), EntryType::Regular, format!("#!/bin/sh\necho {name} {version}\n").into_bytes())
}

/// The three programs.
pub fn programs(version: &str) -> Vec<Entry> {
    PROGRAMS.map(|name| program(name, version)).into()
}

/// Packs `entries` into an archive without checking their names.
pub fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for Entry(name, kind, content) in entries {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4777); // the updater must not keep this mode
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let content: &[u8] = if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content);
            &[]
        } else {
            content
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A key made from one byte.
pub fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32])
}

/// Signs `archive` as the file `name`.
pub fn sign(archive: &[u8], key: &SigningKey, name: &str) -> Vec<u8> {
    let mut signed = Cursor::new(Vec::new());
    copy_and_sign_tar(&mut Cursor::new(archive), &mut signed, std::slice::from_ref(key), Some(name.as_bytes())).unwrap();
    signed.into_inner()
}

/// A line of `SHA256SUMS`.
pub fn sum(content: &[u8], name: &str) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}  {name}\n")
}

/// These assets and a file with their checksums.
pub fn with_sums(assets: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let sums: String = assets.iter().map(|(name, content)| sum(content, name)).collect();
    [assets, &[("SHA256SUMS".to_owned(), sums.into_bytes())]].concat()
}

/// The paths and contents of a release with exactly these assets, both as the newest release and under its tag.
pub fn files(url: &str, version: &str, assets: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let listed: Vec<_> = assets.iter().map(|(name, _)| json!({"name": name, "url": format!("{url}/{name}")})).collect();
    let release = json!({"tag_name": format!("v{version}"), "created_at": "2026-01-01T00:00:00Z", "assets": listed});
    let base = "/repos/claude-peers/claude-peers/releases";
    let releases = [format!("{base}/latest"), format!("{base}/tags/v{version}")];
    let releases = releases.map(|path| (path, release.to_string().into_bytes()));
    assets.iter().map(|(name, content)| (format!("/{name}"), content.clone())).chain(releases).collect()
}

/// The content of each path: its bytes and its announced length.
type Files = Arc<Mutex<HashMap<String, (Vec<u8>, usize)>>>;

/// The server. Like GitHub's API, it serves releases as JSON with the addresses of their assets.
pub struct Server {
    /// Its address.
    pub url: String,
    files: Files,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server without releases.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (files, heads) = (Files::default(), Arc::<Mutex<Vec<String>>>::default());
        let (served, heard) = (files.clone(), heads.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                answer(stream, &served, &heard);
            }
        });
        Self { url, files, heads }
    }

    /// Starts a server with a good release that is signed with `key`.
    pub fn with_release(version: &str, key: &SigningKey) -> Self {
        let server = Self::start();
        let name = archive_name(version);
        server.release(version, &[(name.clone(), sign(&pack(&programs(version)), key, &name))]);
        server
    }

    /// Offers a release with these assets and their checksums.
    pub fn release(&self, version: &str, assets: &[(String, Vec<u8>)]) {
        self.release_exactly(version, &with_sums(assets));
    }

    /// Offers a release with exactly these assets, both as the newest and under its tag.
    pub fn release_exactly(&self, version: &str, assets: &[(String, Vec<u8>)]) {
        for (path, content) in files(&self.url, version, assets) {
            self.serve(&path, content);
        }
    }

    /// Serves `content` under `path`.
    pub fn serve(&self, path: &str, content: Vec<u8>) {
        let length = content.len();
        self.files.lock().unwrap().insert(path.to_owned(), (content, length));
    }

    /// From now on closes the connection after half of `path`.
    pub fn cut(&self, path: &str) {
        let mut files = self.files.lock().unwrap();
        let (content, _) = files.get_mut(path).unwrap();
        content.truncate(content.len() / 2);
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, files: &Files, heads: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(head) = read_head(&mut reader) else { return };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heads.lock().unwrap().push(head);
    let found = files.lock().unwrap().get(&path).cloned();
    let (status, content, length) = match found {
        Some((content, length)) => ("200 OK", content, length),
        None => ("404 Not Found", Vec::new(), 0),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // The client may have closed the connection.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content)));
}
