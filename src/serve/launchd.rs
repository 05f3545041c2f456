//! The sockets that launchd holds for the broker, by their names in the LaunchAgent's `Sockets` (`cli/manager/launchd.rs`).
//!
//! This is the one file that only macOS runs. Elsewhere the tests compile it against stand-in declarations, at its end.

use std::{
    io,
    os::fd::{OwnedFd, RawFd},
};

/// The sockets that launchd gives, with their names; none for a broker that was started by hand.
///
/// # Errors
/// If launchd refuses a socket that is this broker's.
pub(super) fn inherited() -> io::Result<Vec<(RawFd, String)>> {
    let mut sockets = Vec::new();
    for name in ["unix", "tcp"] {
        match raunch::activate_socket(name) {
            Ok(descriptors) => sockets.extend(descriptors.into_iter().map(|fd| (fd, name.to_owned()))),
            // Started by hand, or by an agent without this socket: the broker binds it, or says who has it.
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

/// What the crate `raunch` declares on macOS, answering what a test has put down.
#[cfg(not(target_os = "macos"))]
mod raunch {
    use std::{cell::RefCell, collections::HashMap, fmt, os::fd::RawFd};

    #[derive(Debug, Clone)]
    pub enum Error {
        Null,
        NotInPlist,
        NotManaged,
        AlreadyActivated,
        Unknown(std::ffi::c_int),
    }

    impl std::error::Error for Error {}

    impl fmt::Display for Error {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Null => f.write_str("null found in name string"),
                Self::NotInPlist => f.write_str("not in the plist"),
                Self::NotManaged => f.write_str("not managed by launchd"),
                Self::AlreadyActivated => f.write_str("already activated"),
                Self::Unknown(code) => write!(f, "unknown error {code}"),
            }
        }
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
    fn each_socket_keeps_its_name_and_only_those_launchd_has_are_taken() {
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
    fn what_launchd_gives_counts_as_listening() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(listens(&socket.into()));
    }

    #[test]
    fn a_socket_that_launchd_refuses_stops_the_broker_with_its_name() {
        for refusal in [Error::AlreadyActivated, Error::Null, Error::Unknown(5)] {
            ANSWERS.set([("unix", Ok(vec![5])), ("tcp", Err(refusal))].into());
            assert!(inherited().unwrap_err().to_string().contains("\"tcp\""));
        }
    }
}
