//! The sockets that systemd holds for the broker, by their `FileDescriptorName=`.

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
};

/// The sockets that systemd gives, with their names; none for a broker that was started by hand. Fails if systemd's variables
/// make no sense.
pub(super) fn inherited() -> io::Result<Vec<(RawFd, String)>> {
    if sd_notify::listen_fds()?.len() == 0 {
        return Ok(Vec::new()); // leftover names belong to another process, from which they were inherited
    }
    Ok(sd_notify::listen_fds_with_names()?.collect())
}

/// Whether a socket listens.
pub(super) fn listens(socket: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}
