//! The kernel's facts about a TCP connection: the user at its other end and the process that holds it.
//!
//! `sock_diag` could look up a single connection, but a hardened unit has no netlink sockets (`RestrictAddressFamilies=`). The
//! tables in `/proc/net` need no special access. The broker reads them once per connection, at accept. Without `/proc` (macOS) no
//! connection is found, and TCP requests carry the machine token instead.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The other end of a connection, or the holder of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    /// The user who made it.
    pub uid: u32,
    /// Its number in the kernel's table of files.
    pub inode: u64,
}

/// The kernel's tables of sockets, by the family of the socket: proc_net(5).
const IPV4: &str = "/proc/net/tcp";
const IPV6: &str = "/proc/net/tcp6";
/// The fields after the addresses: the state of a listening socket, the user, the inode.
const STATE: usize = 3;
const LISTENING: &str = "0A";
const USER: usize = 7;
const INODE: usize = 9;

/// Whether connections can be looked up on this machine.
pub fn can_tell() -> bool {
    File::open(IPV4).is_ok()
}

/// The socket at the other end of a connection from `peer` to us at `local`. None if its process has already closed it, because a
/// closed socket has no inode and no owner.
pub fn connecting(peer: SocketAddr, local: SocketAddr) -> Option<Socket> {
    let row = |peer, local| format!(" {} {} ", notation(peer), notation(local));
    let older = if peer.is_ipv4() { find(IPV4, &[row(peer, local)], "") } else { None };
    // An IPv6 socket may have connected to an IPv4 address.
    older.or_else(|| find(IPV6, &[row(mapped(peer), mapped(local))], "")).filter(|socket| socket.inode != 0)
}

/// The holder of a TCP port on this machine's loopback.
pub fn listening(port: u16) -> Option<Socket> {
    let on = |ip: IpAddr| SocketAddr::from((ip, port));
    let four = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].map(|ip| on(ip.into()));
    let six = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED].map(|ip| on(ip.into()));
    let row = |address| format!(" {} ", notation(address));
    let newer = || [six.map(row), four.map(mapped).map(row)].concat();
    find(IPV4, &four.map(row), LISTENING).or_else(|| find(IPV6, &newer(), LISTENING))
}

/// The process that holds a socket; none if the process belongs to another user.
pub fn owner(inode: u64) -> Option<u32> {
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| holds(*pid, inode) == Some(true))
}

/// Whether the process `pid` holds a socket; none if its files cannot be read.
pub fn holds(pid: u32, inode: u64) -> Option<bool> {
    let wanted = format!("socket:[{inode}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|target| target.as_os_str() == wanted.as_str()))
}

/// The first socket whose line has one of `rows`, and the state unless that is empty. Stops reading there: the kernel makes the
/// table as it is read, which takes milliseconds on a busy machine.
fn find(table: &str, rows: &[String], state: &str) -> Option<Socket> {
    let mut table = BufReader::new(File::open(table).ok()?);
    let mut line = String::new();
    while table.read_line(&mut line).ok()? > 0 {
        let field = |number| line.split_ascii_whitespace().nth(number);
        if rows.iter().any(|row| line.contains(row)) && (state.is_empty() || field(STATE) == Some(state)) {
            return Some(Socket { uid: field(USER)?.parse().ok()?, inode: field(INODE)?.parse().ok()? });
        }
        line.clear();
    }
    None
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    }
}

/// An address as the tables write it: the four-byte words of the IP as numbers of this machine, in hexadecimal.
fn notation(address: SocketAddr) -> String {
    let words = |ip: &[u8]| -> String {
        ip.chunks(4).map(|word| format!("{:08X}", word.try_into().map_or(0, u32::from_ne_bytes))).collect()
    };
    let ip = match address.ip() {
        IpAddr::V4(ip) => words(&ip.octets()),
        IpAddr::V6(ip) => words(&ip.octets()),
    };
    format!("{ip}:{:04X}", address.port())
}
