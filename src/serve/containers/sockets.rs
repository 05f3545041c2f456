//! The sockets of containers. Each lies in a folder of its own, which is mounted into one container: every client of the socket belongs
//! to that container. A broker that starts reopens the sockets of the folders that it finds.
//!
//! Promises:
//! - Outside the container, only this user reaches the socket. The folder of all these folders has mode 0700; inside it, folder and
//!   socket are open to every user, because a container's users are not those of the machine.
//! - A folder stays the same as long as its socket is open, so a container sees the socket of a broker that has restarted.
//! - No link in a container's folder is followed, and no file in it is read.
//! - A broker with an open socket does not stop when idle: a container cannot start it.

use super::Order;
use crate::{
    broker::Broker,
    platform::{files, random},
    serve::{
        connections::{Listener, Server},
        idle::{Counted, Open},
    },
    wire::{self, Code, ContainerName, Error},
};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::UnixListener,
    sync::mpsc,
    task::{AbortHandle, JoinSet, spawn_blocking},
};

/// The socket in a container's folder.
const SOCKET: &str = "broker.sock";
/// A socket that is not in its place yet. No container has such a name.
const NEW: &str = ".new";
/// Begins the name of a closed container's folder, until it is removed. No container has such a name.
const CLOSED: &str = ".closed-";
/// How many sockets may be open: each uses one of the file descriptors that the broker has beside those of its connections.
const MOST: usize = 32;

#[derive(Debug)]
pub(in crate::serve) struct Serving {
    folder: PathBuf,
    orders: mpsc::Receiver<Order>,
    bound: Vec<(ContainerName, UnixListener)>,
}

/// Opens the sockets that an earlier broker has left in `folder`. One that cannot be opened is reported.
pub(in crate::serve) fn reopen(folder: PathBuf, orders: mpsc::Receiver<Order>, broker: &Broker) -> Serving {
    let mut bound = Vec::new();
    for name in left(&folder) {
        match bind(&folder, &name) {
            Ok(listener) => bound.push((name, listener)),
            Err(error) => broker.notice(format!("the socket of the container {name} cannot be opened: {error}")),
        }
    }
    Serving { folder, orders, bound }
}

impl Serving {
    /// Serves the sockets, and carries out orders, until the broker stops.
    pub async fn serve(self, server: Arc<Server>, broker: Arc<Broker>, open: Open) {
        let Self { folder, mut orders, bound } = self;
        spawn_blocking({
            let folder = folder.clone();
            move || remove_closed(&folder)
        });
        let mut sockets = Sockets { folder, server, open, serving: BTreeMap::new(), tasks: JoinSet::new() };
        for (name, listener) in bound {
            sockets.serve(name, listener);
        }
        loop {
            let order = tokio::select! {
                biased;
                () = broker.stopped() => break,
                Some(_) = sockets.tasks.join_next() => continue,
                order = orders.recv() => order,
            };
            // If nobody waits for an answer any more, the order is carried out all the same.
            match order {
                Some(Order::Open(name, answer)) => drop(answer.send(sockets.open(name))),
                Some(Order::Close(name, answer)) => drop(answer.send(sockets.close(name))),
                Some(Order::List(answer)) => drop(answer.send(Ok(sockets.serving.keys().cloned().collect()))),
                None => break,
            }
        }
        while sockets.tasks.join_next().await.is_some() {}
    }
}

struct Sockets {
    folder: PathBuf,
    server: Arc<Server>,
    open: Open,
    /// What serves each open socket. It counts as a connection.
    serving: BTreeMap<ContainerName, (AbortHandle, Counted)>,
    tasks: JoinSet<()>,
}

impl Sockets {
    fn open(&mut self, name: ContainerName) -> wire::Result<()> {
        if self.serving.contains_key(&name) {
            return Ok(());
        }
        if self.serving.len() >= MOST {
            let what = format!("{MOST} containers are open, and more are refused");
            return Err(Error::new(Code::Busy, what).help("close one: `claude-peers container NAME --close`"));
        }
        let listener = bind(&self.folder, &name).map_err(|error| {
            let what = format!("the socket of the container {name} in {} cannot be opened: {error}", self.folder.display());
            Error::new(Code::Internal, what)
        })?;
        tracing::info!("the socket of the container {name} is open");
        self.serve(name, listener);
        Ok(())
    }

    fn serve(&mut self, name: ContainerName, listener: UnixListener) {
        let accepting = self.server.clone().accept(Listener::Left(listener), Some(name.as_str().into()));
        let task = self.tasks.spawn(accepting);
        self.serving.insert(name, (task, self.open.count()));
    }

    /// Ends the connections and removes the folder.
    fn close(&mut self, name: ContainerName) -> wire::Result<()> {
        let place = self.folder.join(name.as_str());
        let Some((task, _)) = self.serving.remove(&name) else {
            let help = "`claude-peers container --list` shows the open ones";
            return Err(Error::new(Code::ContainerNotFound, format!("no socket of a container {name} is open")).help(help));
        };
        task.abort();
        tracing::info!("the socket of the container {name} is closed");
        // No broker opens a folder with this name again, even if the container has put so much into it that its removal takes long.
        let closed = self.folder.join(format!("{CLOSED}{}", random::token(8)));
        fs::rename(&place, &closed).map_err(|error| {
            let what = format!("the container {name} is closed, but its folder {} cannot be removed: {error}", place.display());
            Error::new(Code::Internal, what).help("remove the folder; the next broker opens the socket again otherwise")
        })?;
        let folder = self.folder.clone();
        spawn_blocking(move || remove_closed(&folder));
        Ok(())
    }
}

/// The containers whose folders are there.
fn left(folder: &Path) -> Vec<ContainerName> {
    let mut names: Vec<ContainerName> = folders(folder).filter_map(|name| name.parse().ok()).collect();
    names.sort();
    names.truncate(MOST);
    names
}

/// The names of the folders in `folder`, if they are UTF-8.
fn folders(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Removes what is left of closed containers.
fn remove_closed(folder: &Path) {
    for closed in folders(folder).filter(|name| name.starts_with(CLOSED)).map(|name| folder.join(name)) {
        match fs::remove_dir_all(&closed) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "the folder {} of a closed container cannot be removed: {error}", closed.display());
            }
            _ => {}
        }
    }
}

/// Listens in the folder of a container, which is made if it is missing. The socket gets its mode outside of that folder and is then
/// moved there, because the container may change what lies in the folder at any time.
fn bind(folder: &Path, name: &ContainerName) -> io::Result<UnixListener> {
    make_folder(folder, 0o700)?;
    if fs::symlink_metadata(folder)?.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other("others may enter the folder of the containers: another program has made or changed it"));
    }
    let place = folder.join(name.as_str());
    make_folder(&place, 0o755)?;
    let new = folder.join(NEW);
    files::remove(&new)?;
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o666))?;
    fs::rename(&new, place.join(SOCKET))?;
    Ok(listener)
}

/// Makes a folder with this mode, whatever the umask is, unless it is there.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
}
