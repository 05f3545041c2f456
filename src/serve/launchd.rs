//! The sockets that launchd holds for the broker, by their names in the LaunchAgent's `Sockets` (`admin/manager/launchd.rs`).
//!
//! Only macOS runs this file. Elsewhere the tests compile it against the stand-in declarations at its end.

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
};

/// The sockets that launchd gives, with their names; none for a broker that was started by hand. Fails if launchd refuses one.
pub(super) fn inherited() -> io::Result<Vec<(RawFd, String)>> {
    let mut sockets = Vec::new();
    for name in ["unix", "tcp"] {
        match raunch::activate_socket(name) {
            Ok(descriptors) => sockets.extend(descriptors.into_iter().map(|fd| (fd, name.to_owned()))),
            // Started by hand, or by an agent without this socket: the broker binds it, or reports its holder.
            Err(raunch::Error::NotManaged | raunch::Error::NotInPlist) => {}
            Err(error) => return Err(io::Error::other(format!("asking launchd for the socket {name:?}: {error}"))),
        }
    }
    Ok(sockets)
}

/// Whether a socket listens: Apple's kernel does not tell, and launchd gives no others.
pub(super) fn listens(_socket: &OwnedFd) -> bool {
    true
}

/// Stands in for the crate `raunch`, which exists on macOS only; gives the answers that a test has set.
#[cfg(not(target_os = "macos"))]
mod raunch {
    use std::{cell::RefCell, collections::HashMap, os::fd::RawFd};

    #[derive(Debug, Clone, thiserror::Error)]
    pub enum Error {
        #[error("not in the plist")]
        NotInPlist,
        #[error("not managed by launchd")]
        NotManaged,
        #[error("already activated")]
        AlreadyActivated,
    }

    thread_local! {
        pub static ANSWERS: RefCell<HashMap<&'static str, Result<Vec<RawFd>, Error>>> = RefCell::default();
    }

    pub fn activate_socket(name: &str) -> Result<Vec<RawFd>, Error> {
        ANSWERS.with_borrow(|answers| answers.get(name).cloned().unwrap_or(Err(Error::NotInPlist)))
    }
}

#[cfg(all(test, not(target_os = "macos")))]
mod tests {
    use super::{
        inherited, listens,
        raunch::{ANSWERS, Error},
    };

    #[test]
    fn sockets_keep_their_names() {
        let table = [
            ([Ok(vec![5]), Ok(vec![7])], vec![(5, "unix"), (7, "tcp")]),
            // The port was not to be had.
            ([Ok(vec![5]), Err(Error::NotInPlist)], vec![(5, "unix")]),
            // By hand.
            ([Err(Error::NotManaged), Err(Error::NotManaged)], vec![]),
        ];
        for ([unix, tcp], expected) in table {
            ANSWERS.set([("unix", unix), ("tcp", tcp)].into());
            let got = inherited().unwrap();
            assert_eq!(got.iter().map(|(fd, name)| (*fd, name.as_str())).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn every_socket_counts_as_listening() {
        assert!(listens(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()));
    }

    #[test]
    fn a_refused_socket_is_named() {
        ANSWERS.set([("unix", Ok(vec![5])), ("tcp", Err(Error::AlreadyActivated))].into());
        assert!(inherited().unwrap_err().to_string().contains("\"tcp\""));
    }
}
