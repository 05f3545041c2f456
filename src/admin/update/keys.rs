//! The public keys that sign releases. They are built in; none come from the environment. An empty list would accept any archive,
//! so it does not compile. Nor does a key file that is not 32 bytes long.

/// An ed25519 public key as `zipsign gen-key` writes it.
pub type Key = [u8; 32];

/// The files in `packaging/release/keys`; two while one key replaces another.
pub const BUILT_IN: &[Key] = &[*include_bytes!("../../../packaging/release/keys/release.pub")];

const _: () = assert!(!BUILT_IN.is_empty(), "a program that trusts no key would take any archive");
