//! The containers whose sockets are open: requests for changes, which [`sockets`] carries out.

pub(super) mod sockets;

use crate::{
    broker::Broker,
    wire::{self, Code, Container, ContainerName, Error},
};
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

/// Orders that wait. The user gives few.
const QUEUE: usize = 8;

type Answer<T> = oneshot::Sender<wire::Result<T>>;

/// A change of the open sockets, or a question.
#[derive(Debug)]
pub(super) enum Order {
    Open(ContainerName, Answer<()>),
    Close(ContainerName, Answer<()>),
    List(Answer<Vec<ContainerName>>),
}

/// Gives the orders.
#[derive(Debug)]
pub(super) struct Containers {
    folder: PathBuf,
    orders: mpsc::Sender<Order>,
}

impl Containers {
    /// The containers with their folders in `folder`, and the orders to carry out.
    pub fn new(folder: PathBuf) -> (Self, mpsc::Receiver<Order>) {
        let (orders, received) = mpsc::channel(QUEUE);
        (Self { folder, orders }, received)
    }

    pub async fn list(&self, broker: &Broker) -> wire::Result<wire::Containers> {
        let names = self.order(Order::List).await?;
        Ok(wire::Containers { containers: names.into_iter().map(|name| self.shown(broker, name)).collect() })
    }

    pub async fn open(&self, broker: &Broker, name: ContainerName) -> wire::Result<Container> {
        self.order(|answer| Order::Open(name.clone(), answer)).await?;
        Ok(self.shown(broker, name))
    }

    pub async fn close(&self, name: ContainerName) -> wire::Result<()> {
        self.order(|answer| Order::Close(name, answer)).await
    }

    async fn order<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> wire::Result<T> {
        let stopping = || Error::new(Code::Stopping, "the broker is about to end").help("try again");
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    fn shown(&self, broker: &Broker, name: ContainerName) -> Container {
        let folder = self.folder.join(name.as_str()).to_string_lossy().into_owned();
        Container { peers: broker.peers_in(name.as_str()), folder, name }
    }
}
