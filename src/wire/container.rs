use super::{Code, Error, define::object};
use serde_with::{DeserializeFromStr, SerializeDisplay};
use std::{fmt, str::FromStr};

/// Longest name, so that it fits into a table and a path.
const LONGEST: usize = 32;
/// How much of a wrong name an error repeats.
const MAX_ECHO: usize = 40;

/// The name that the user gives a container: 1 to 32 letters, digits, `-` or `_`, the first a letter or a digit. It is also the name of a
/// folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, SerializeDisplay, DeserializeFromStr)]
#[cfg_attr(feature = "broker", derive(utoipa::ToSchema), schema(value_type = String, example = "shop-api"))]
pub struct ContainerName(String);

impl ContainerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if begins_well && text.len() <= LONGEST && text.bytes().all(is_allowed) {
            return Ok(Self(text.to_owned()));
        }
        let given: String = text.chars().take(MAX_ECHO).collect();
        Err(Error::new(Code::InvalidId, format!("{given:?} cannot be a container's name"))
            .help("use 1 to 32 letters, digits, '-' or '_', the first a letter or a digit"))
    }
}

object! {
    /// A container with a socket of its own.
    pub struct Container {
        pub name: ContainerName,
        /// The absolute path of the folder to mount into the container; its socket is `broker.sock`.
        pub folder: String,
        /// How many of its sessions are connected or reconnecting.
        pub peers: u32,
    }

    pub struct Containers {
        pub containers: Vec<Container>,
    }
}
