//! The directory: which machines belong together, and the key that each of them seals with. Their owner signs it, so the hub that hands it out
//! can neither add a machine nor change a key. A machine takes a directory only if it is newer than the one that it has.

use super::{key::broken, report::json};
use crate::wire::{self, Code, Error, MachineName};
use data_encoding::BASE64;
use nkeys::{KeyPair, XKey};
use serde::{Deserialize, Serialize};

/// What the owner's key signs begins with this.
const PURPOSE: &str = "claude-peers directory\n";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    /// Counts the changes.
    pub serial: u64,
    pub machines: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub name: MachineName,
    /// The public part of the key that it seals with.
    pub seal: String,
}

impl Directory {
    pub fn get(&self, name: &MachineName) -> Option<&Member> {
        self.machines.iter().find(|member| member.name == *name)
    }

    pub fn sign(&self, owner: &KeyPair) -> wire::Result<Signed> {
        let text = json(self)?;
        let signature = owner.sign(signed(&text).as_bytes()).map_err(broken)?;
        Ok(Signed { text, signature: BASE64.encode(&signature) })
    }
}

impl Member {
    pub fn key(&self) -> wire::Result<XKey> {
        let unusable = |_| Error::new(Code::InvalidRequest, format!("the directory has no usable key of {}", self.name));
        XKey::from_public_key(&self.seal).map_err(unusable)
    }
}

/// A directory with its owner's signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Signed {
    text: String,
    signature: String,
}

impl Signed {
    /// The directory, if `owner` has signed it.
    pub fn open(&self, owner: &str) -> wire::Result<Directory> {
        let refused = |why: &str| Error::new(Code::Forbidden, format!("the directory of machines {why}"));
        let key = KeyPair::from_public_key(owner)
            .map_err(|_| refused("cannot be verified, because the public key of its owner is not valid"))?;
        let signature = BASE64.decode(self.signature.as_bytes()).map_err(|_| refused("has no signature"))?;
        key.verify(signed(&self.text).as_bytes(), &signature).map_err(|_| refused("is not signed by its owner"))?;
        serde_json::from_str(&self.text).map_err(|error| refused(&format!("cannot be read: {error}")))
    }
}

fn signed(text: &str) -> String {
    format!("{PURPOSE}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let member = Member { name: "laptop".parse().unwrap(), seal: XKey::new().public_key() };
        Directory { serial: 7, machines: vec![member] }
    }

    #[test]
    fn nobody_else_signs() {
        let (owner, other) = (KeyPair::new_account(), KeyPair::new_account());
        let error = directory().sign(&other).unwrap().open(&owner.public_key()).unwrap_err();
        assert!(error.message.contains("not signed by its owner"), "{error:?}");
    }

    #[test]
    fn no_word_of_it_can_be_changed() {
        let owner = KeyPair::new_account();
        let signed = directory().sign(&owner).unwrap();
        assert_eq!(signed.open(&owner.public_key()).unwrap().serial, 7);
        for changed in [signed.text.replace("laptop", "laptox"), signed.text.replace('7', "8"), format!("{} ", signed.text)] {
            Signed { text: changed, ..signed.clone() }.open(&owner.public_key()).unwrap_err();
        }
    }
}
