//! The public keys that releases are signed with: what an update is believed for.
//!
//! Promises: only these keys, and none from the environment or a file, are built in. A program that trusts no key would take
//! any archive, so an empty list does not compile, and neither does a key file that is not 32 bytes long.

/// An ed25519 public key as `zipsign gen-key` writes it.
pub type Key = [u8; 32];

/// The files in `packaging/release/keys`; two while one key gives way to the next.
pub const BUILT_IN: &[Key] = &[*include_bytes!("../../../packaging/release/keys/release.pub")];

const _: () = assert!(!BUILT_IN.is_empty(), "a program that trusts no key would take any archive");
