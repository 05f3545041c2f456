//! Sealing: what one machine sends another is encrypted and authenticated between the two (NaCl's box, as NATS' xkeys do it). The hub
//! between them can neither read nor change it, nor make up something of its own.

use super::{
    directory::{Directory, Member},
    key::broken,
    report::json,
};
use crate::wire::{self, AnnouncedPeer, Code, Error, MachineName, RemoteMessage, RemoteReceipt, Timestamp};
use nkeys::XKey;
use serde::{Deserialize, Serialize};

/// What is sealed. The names are inside, because a box opens in both directions: without them, a hub could hand a machine its own words back as
/// those of the other.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed<T> {
    from: MachineName,
    to: MachineName,
    #[serde(flatten)]
    content: T,
}

/// What a machine sends another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Content {
    Letter(Letter),
    Presence(Presence),
}

/// Messages and receipts, each oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Letter {
    /// When it was sealed, by the clock of its machine, to which all its times refer.
    pub sealed_at: Timestamp,
    pub messages: Vec<RemoteMessage>,
    pub receipts: Vec<RemoteReceipt>,
}

/// Who is there, for a machine that has asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Presence {
    /// The word of the question, which proves that this is no old answer.
    pub question: String,
    /// Changes with the list.
    pub version: String,
    pub peers: Vec<AnnouncedPeer>,
}

/// How many bytes a seal adds: its version, the nonce and the tag.
pub(super) const ADDED: usize = 4 + 24 + 16;

/// Seals and opens for one machine.
#[derive(Debug)]
pub(super) struct Seal {
    pub machine: MachineName,
    pub key: XKey,
}

impl Seal {
    /// Seals `content` to a machine.
    pub fn seal(&self, to: &Member, content: &Content) -> wire::Result<Vec<u8>> {
        let sealed = Sealed { from: self.machine.clone(), to: to.name.clone(), content };
        self.key.seal(json(&sealed)?.as_bytes(), &to.key()?).map_err(broken)
    }

    /// Opens what `from` has sealed to this machine.
    pub fn open(&self, directory: &Directory, from: &MachineName, sealed: &[u8]) -> wire::Result<Content> {
        let refused = |why: &str| Error::new(Code::Forbidden, format!("data in the name of {from} was refused: {why}"));
        let member = directory.get(from).ok_or_else(|| refused("it is none of your machines"))?;
        let text = self.key.open(sealed, &member.key()?).map_err(|_| refused("its seal does not match"))?;
        let sealed: Sealed<Content> =
            serde_json::from_slice(&text).map_err(|error| refused(&format!("it cannot be read: {error}")))?;
        match sealed.from == *from && sealed.to == self.machine {
            true => Ok(sealed.content),
            false => Err(refused(&format!("it was sealed by {} to {}", sealed.from, sealed.to))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines() -> (Seal, Seal, Directory) {
        let seal = |name: &str| Seal { machine: name.parse().unwrap(), key: XKey::new() };
        let (laptop, desktop) = (seal("laptop"), seal("desktop"));
        let member = |seal: &Seal| Member { name: seal.machine.clone(), seal: seal.key.public_key() };
        let machines = vec![member(&laptop), member(&desktop)];
        (laptop, desktop, Directory { serial: 1, machines })
    }

    fn letter() -> Content {
        Content::Letter(Letter { sealed_at: Timestamp::from_millis(1), messages: Vec::new(), receipts: Vec::new() })
    }

    #[test]
    fn nothing_else_opens() {
        let (laptop, desktop, directory) = machines();
        let sealed = laptop.seal(&directory.machines[1], &letter()).unwrap();
        desktop.open(&directory, &laptop.machine, &sealed).unwrap();
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            desktop.open(&directory, &laptop.machine, &changed).unwrap_err();
            desktop.open(&directory, &laptop.machine, &sealed[..place]).unwrap_err();
        }
        desktop.open(&directory, &desktop.machine, &sealed).unwrap_err();
        desktop.open(&directory, &"other".parse().unwrap(), &sealed).unwrap_err();
    }

    #[test]
    fn seal_adds_what_is_said() {
        let (laptop, _, directory) = machines();
        let text =
            serde_json::to_vec(&Sealed { from: laptop.machine.clone(), to: "desktop".parse().unwrap(), content: letter() });
        let sealed = laptop.seal(&directory.machines[1], &letter()).unwrap();
        assert_eq!(sealed.len(), text.unwrap().len() + ADDED);
    }
}
