use super::{
    Code, Error,
    define::{object, texts},
    error::echo,
    id::is_made_of,
};

texts! {
    /// The name that the user gives a container: 1 to 32 letters, digits, `-` or `_`, the first a letter or a digit. It is also the name of a
    /// folder, and fits into a table.
    pub struct ContainerName like "shop-api",
        if |text| is_made_of(text, 1..=32, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && !text.starts_with(['_', '-']),
        else |given| Error::new(Code::InvalidId, format!("{given:?} cannot be a container's name"))
            .help("use 1 to 32 letters, digits, '-' or '_', the first a letter or a digit");
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
