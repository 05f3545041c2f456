//! Socket activation without a service manager: the test keeps the sockets and passes them to each broker it starts.

use super::{
    Broker,
    http::{Conversation, Http},
};
use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    process::Command,
};

/// Binds the broker's Unix socket in its usual place.
pub fn bind_unix(broker: &Broker) -> UnixListener {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(broker.socket().parent().unwrap()).unwrap();
    UnixListener::bind(broker.socket()).unwrap()
}

/// The command that starts the broker with these descriptors from 3 on, as a service manager does. The shell gets them as
/// standard input and output, the only descriptors that `Command` passes to a child.
pub fn activated<const N: usize>(broker: &Broker, descriptors: [(&str, OwnedFd); N]) -> Command {
    let places = ["3<&0 0</dev/null", "4<&1 1>/dev/null"][..N].join(" ");
    let mut command = broker.command_after(&format!("exec {places}; export LISTEN_PID=$$"));
    let names: Vec<&str> = descriptors.iter().map(|(name, _)| *name).collect();
    command.env("LISTEN_FDS", N.to_string()).env("LISTEN_FDNAMES", names.join(":"));
    let mut descriptors = descriptors.into_iter().map(|(_, descriptor)| descriptor);
    descriptors.next().map(|first| command.stdin(first));
    descriptors.next().map(|second| command.stdout(second));
    command
}

/// Writes a request whose answer the test reads later.
pub fn said(http: &Http) -> Conversation {
    let mut conversation = http.converse();
    conversation.say(&http.written("GET", "/v1/status", &[], "")).unwrap();
    conversation
}
