//! What the kernel knows of a TCP connection: who is at its other end, and which process holds it.
//!
//! `sock_diag` would answer for one connection alone, but a hardened unit has no netlink sockets
//! (`RestrictAddressFamilies=`); `/proc/net/tcp` needs nothing. It is read once a connection, at accept.

use std::net::SocketAddr;

/// The other end of a connection, or the holder of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// The user who made it.
    pub uid: u32,
    /// Its number in the kernel's table of files.
    pub inode: u64,
}

pub use imp::{can_tell, connecting, holds, listening, owner};

#[cfg(target_os = "linux")]
mod imp {
    use super::{Socket, SocketAddr};
    use procfs::net::{TcpNetEntry, TcpState};
    use std::{fs, net::IpAddr};

    /// Whether connections can be looked up at all on this machine.
    pub fn can_tell() -> bool {
        procfs::net::tcp().is_ok()
    }

    /// The socket at the other end of a connection from `peer` to us at `local`. A socket that its process has closed
    /// already has no inode and belongs to nobody: such an end is not found.
    pub fn connecting(peer: SocketAddr, local: SocketAddr) -> Option<Socket> {
        let is_it = |entry: &TcpNetEntry| entry.local_address == peer && entry.remote_address == local && entry.inode != 0;
        entries().find(is_it).map(socket)
    }

    /// Who listens on a TCP port of this machine's loopback.
    pub fn listening(port: u16) -> Option<Socket> {
        let is_it = |entry: &TcpNetEntry| {
            let ip = entry.local_address.ip();
            let loopback =
                ip.is_loopback() || ip.is_unspecified() || matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            entry.state == TcpState::Listen && entry.local_address.port() == port && loopback
        };
        entries().find(is_it).map(socket)
    }

    /// The process that holds a socket; none if it is another user's.
    pub fn owner(inode: u64) -> Option<u32> {
        let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.into_iter().find(|pid| holds(*pid, inode) == Some(true))
    }

    /// Whether the process `pid` holds a socket; none where its files cannot be read.
    pub fn holds(pid: u32, inode: u64) -> Option<bool> {
        let wanted = format!("socket:[{inode}]");
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        Some(files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|target| target.as_os_str() == wanted.as_str()))
    }

    fn entries() -> impl Iterator<Item = TcpNetEntry> {
        let four = procfs::net::tcp().unwrap_or_default();
        let six = procfs::net::tcp6().unwrap_or_default();
        four.into_iter().chain(six)
    }

    fn socket(entry: TcpNetEntry) -> Socket {
        Socket { uid: entry.uid, inode: entry.inode }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    //! Elsewhere the kernel does not tell: TCP requests carry the machine token instead.
    use super::{Socket, SocketAddr};

    pub fn can_tell() -> bool {
        false
    }
    pub fn connecting(_peer: SocketAddr, _local: SocketAddr) -> Option<Socket> {
        None
    }
    pub fn listening(_port: u16) -> Option<Socket> {
        None
    }
    pub fn owner(_inode: u64) -> Option<u32> {
        None
    }
    pub fn holds(_pid: u32, _inode: u64) -> Option<bool> {
        None
    }
}
