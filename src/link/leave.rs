//! `leave`: this machine leaves the others.

use super::{home::Home, report::say, service};
use crate::wire;

pub(super) async fn run() -> wire::Result<()> {
    let home = Home::open()?;
    let name = home.name.clone();
    service::stop().await?;
    home.remove()?;
    say(&format!(
        "This machine has left. Run `claude-peers link revoke {name}` where you ran `claude-peers link init`, or the name stays taken."
    ));
    Ok(())
}
