//! `revoke`: a machine is out. The hub closes its connection, and no other machine takes anything from it.

use super::Owner;
use crate::{
    link::{args::RevokeArgs, report::say},
    wire::{self, Code, Error},
};

pub(in crate::link) async fn run(RevokeArgs { name, folder }: RevokeArgs) -> wire::Result<()> {
    let folder = folder.map_or_else(super::folder, Ok)?;
    let (owner, was_there) = Owner::change(&folder, |owner| {
        let before = owner.machines.len();
        owner.machines.retain(|machine| machine.name != name);
        let was_there = owner.machines.len() < before;
        owner.serial += u64::from(was_there);
        // The same line would let a machine in again.
        let invited = owner.invitations.len();
        owner.invitations.retain(|invited| invited.name != name);
        Ok(was_there || owner.invitations.len() < invited)
    })
    .await?;
    // Also if it was removed before: the hub may not have heard of it.
    let hub = owner.apply().await.map_err(|error| {
        let what = format!("{name} is removed here, but the hub still lets it in: {}", error.message);
        let first = error.help.map(|help| format!("{help}; then ")).unwrap_or_default();
        Error::new(error.code, what).help(format!("{first}repeat `claude-peers link revoke {name}`"))
    })?;
    hub.forget(&name).await?;
    match was_there {
        true => say(&format!("Removed {name}.")),
        false => {
            return Err(
                Error::new(Code::PeerNotFound, format!("there is no machine {name}")).help("`claude-peers link list` shows them")
            );
        }
    }
    Ok(())
}
