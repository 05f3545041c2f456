//! Messages to the service manager, such as systemd: through the socket that `NOTIFY_SOCKET` names, abstract ones included.

use sd_notify::NotifyState;
use std::io;

/// The variable that names the service manager's socket.
#[cfg(target_os = "linux")]
const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells the service manager, if there is one. `waits`: for room in its queue; otherwise a full queue is an error of the kind
/// `WouldBlock`.
#[cfg(target_os = "linux")]
pub fn tell(states: &[NotifyState<'_>], waits: bool) -> io::Result<()> {
    use super::settings;
    use std::{
        ffi::OsStr,
        os::{
            linux::net::SocketAddrExt,
            unix::{
                ffi::OsStrExt,
                net::{SocketAddr, UnixDatagram},
            },
        },
    };
    let send = |path: &OsStr| {
        let manager = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(!waits)?;
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        socket.send_to_addr(message.as_bytes(), &manager).map(drop)
    };
    let Some(path) = settings::raw(SOCKET) else { return Ok(()) };
    send(&path).map_err(|error| io::Error::new(error.kind(), format!("{SOCKET}={}: {error}", path.display())))
}

#[cfg(not(target_os = "linux"))]
pub fn tell(states: &[NotifyState<'_>], _waits: bool) -> io::Result<()> {
    sd_notify::notify(states)
}
