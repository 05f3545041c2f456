//! Whom a client trusts behind a socket: this user, or in a container whoever's folder is mounted there.

use std::path::Path;

/// Whether a client may talk to the user `owner`, who listens at `socket`.
pub fn is_trusted(socket: &Path, owner: u32) -> bool {
    owner == rustix::process::getuid().as_raw() || is_mounted(socket, owner)
}

/// Whether `socket`, which belongs to the user `owner`, was mounted into this container. There the broker belongs to a user of the machine,
/// who may have any number inside, or none. So the socket's folder must be a mount, which only the container's maker can make, belong to
/// the same user, and be closed to the writes of others.
#[cfg(target_os = "linux")]
pub fn is_mounted(socket: &Path, owner: u32) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    const WRITABLE_BY_OTHERS: u16 = 0o022;
    let Some(folder) = socket.parent() else { return false };
    let wanted = StatxFlags::MODE | StatxFlags::UID;
    statx(CWD, folder, AtFlags::SYMLINK_NOFOLLOW, wanted).is_ok_and(|folder| {
        let is_mount = folder.stx_attributes_mask & folder.stx_attributes;
        is_mount.contains(StatxAttributes::MOUNT_ROOT) && folder.stx_uid == owner && folder.stx_mode & WRITABLE_BY_OTHERS == 0
    })
}

/// Containers run on Linux.
#[cfg(not(target_os = "linux"))]
pub fn is_mounted(_socket: &Path, _owner: u32) -> bool {
    false
}
