//! The two ends that all rooms of the link share.

use super::hub::Hub;
use crate::{client::Client, wire::MachineName};

/// Both ends of a link: the broker of this machine and the hub, with the name of this machine there.
#[derive(Debug)]
pub(super) struct Link {
    pub broker: Client,
    pub hub: Hub,
    pub machine: MachineName,
}
