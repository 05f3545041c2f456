//! An invitation: one line with all that a machine needs to join. It works once, and only while `link invite` waits for it.

use super::{key::broken, report::json};
use crate::wire::{Code, Error, MachineName};
use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType, XKey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

const KIND: &str = "claude-peers-invitation";
const VERSION: &str = "1";
/// The length of a seed.
pub(super) const KEY: usize = 32;
/// The length of a public key as NATS writes it.
const PUBLIC: usize = 56;
const CHECK: usize = 8;

pub(super) struct Invitation {
    /// The hub's addresses: HOST:PORT, separated by commas.
    pub hub: String,
    pub name: MachineName,
    /// The seed of the key that logs in to the hub until the machine has one of its own.
    pub login: [u8; KEY],
    /// The seed of the key by which owner and new machine know each other.
    pub secret: [u8; KEY],
    /// The public part of the key that signs the directory.
    pub owner: String,
    /// The certificate that the hub's is signed with, as DER; empty where a public authority has signed that.
    pub authority: Vec<u8>,
}

impl Invitation {
    /// The key that logs in.
    pub fn login(&self) -> Result<KeyPair, Error> {
        KeyPair::new_from_raw(KeyPairType::User, self.login).map_err(|_| unusable("its key cannot be used"))
    }

    /// What owner and new machine say to each other.
    pub fn seal(&self, said: &impl Serialize) -> Result<Vec<u8>, Error> {
        let key = XKey::new_from_raw(self.secret);
        key.seal(json(said)?.as_bytes(), &key).map_err(broken)
    }

    /// What was said; none if that was somebody without the invitation.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let key = XKey::new_from_raw(self.secret);
        key.open(sealed, &key).ok()
    }

    fn check(&self, body: &[u8]) -> Vec<u8> {
        let digest = Sha256::new().chain_update(format!("{}/{}/", self.hub, self.name)).chain_update(body).finalize();
        digest.iter().take(CHECK).copied().collect()
    }

    fn body(&self) -> Vec<u8> {
        [&self.login[..], &self.secret, self.owner.as_bytes(), &self.authority].concat()
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let all = BASE64URL_NOPAD.encode(&[body.as_slice(), &self.check(&body)].concat());
        write!(f, "{KIND}/{VERSION}/{}/{}/{all}", self.hub, self.name)
    }
}

/// Shows no secrets.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("hub", &self.hub).field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for Invitation {
    type Err = Error;
    fn from_str(line: &str) -> Result<Self, Error> {
        let line = line.trim().strip_prefix("claude-peers link join").unwrap_or(line);
        let line: String = line.split_whitespace().collect();
        let Some(rest) = line.strip_prefix(KIND) else {
            return Err(unusable(&format!("it does not begin with {KIND}"))
                .help("copy the line that `claude-peers link invite` has printed"));
        };
        let (version, rest) = rest.strip_prefix('/').and_then(|rest| rest.split_once('/')).ok_or_else(cut)?;
        if version != VERSION {
            return Err(unusable("it is of another version").help("use the same version of claude-peers-link on both machines"));
        }
        // An address may have slashes.
        let (rest, all) = rest.rsplit_once('/').ok_or_else(cut)?;
        let (hub, name) = rest.rsplit_once('/').ok_or_else(cut)?;
        let all = BASE64URL_NOPAD.decode(all.as_bytes()).map_err(|_| cut())?;
        let (body, check) = all.split_last_chunk::<CHECK>().ok_or_else(cut)?;
        let (login, rest) = body.split_first_chunk().ok_or_else(cut)?;
        let (secret, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let (owner, authority) = rest.split_first_chunk::<PUBLIC>().ok_or_else(cut)?;
        let name = name.parse().map_err(|_| cut())?;
        let owner = String::from_utf8(owner.to_vec()).map_err(|_| cut())?;
        let (login, secret, authority) = (*login, *secret, authority.to_vec());
        let invitation = Self { hub: hub.to_owned(), name, login, secret, owner, authority };
        if invitation.check(body) != *check {
            return Err(cut());
        }
        Ok(invitation)
    }
}

fn cut() -> Error {
    unusable("a part of it is missing or changed").help("copy the whole line that `claude-peers link invite` has printed")
}

fn unusable(why: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("this is no usable invitation: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        let (hub, name) = ("hub.example:4222".to_owned(), "laptop".parse().unwrap());
        Invitation { hub, name, login: [1; KEY], secret: [2; KEY], owner: "A".repeat(PUBLIC), authority: vec![4; 300] }
    }

    #[test]
    fn line_holds_all() {
        let line = format!(" {}\n", invitation());
        assert_eq!(line.parse::<Invitation>().unwrap().to_string(), invitation().to_string());
        assert!(line.len() < 700, "{}", line.len());
    }

    #[test]
    fn cut_line_is_no_invitation() {
        let line = invitation().to_string();
        for length in 0..line.len() {
            line[..length].parse::<Invitation>().unwrap_err();
        }
    }

    #[test]
    fn changed_line_is_no_invitation() {
        let line = invitation().to_string();
        for (place, _) in line.char_indices() {
            let mut changed = line.clone().into_bytes();
            changed[place] = if changed[place] == b'x' { b'y' } else { b'x' };
            String::from_utf8(changed).unwrap().parse::<Invitation>().unwrap_err();
        }
    }
}
