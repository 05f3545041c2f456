//! `invite`: prints one line, and waits until a machine has joined with it.
//!
//! The line has a key that is let in once: the hub knows it only while this waits. The machine that joins makes its keys itself and sends the
//! public parts, sealed with the line's secret. So whoever sees the line later has nothing, and the hub cannot put in keys of its own.

use super::{Invited, Machine, Owner};
use crate::{
    link::{
        args::InviteArgs,
        directory::Signed,
        home::Keys,
        hub::Hub,
        invitation::{Invitation, KEY},
        key::broken,
        report::{Context, print, say},
        store, subject,
    },
    platform::clock,
    wire::{self, Code, Error, MachineName},
};
use async_nats::Message;
use futures_util::StreamExt;
use nkeys::{KeyPair, XKey};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    task::Poll,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout_at},
};

/// How long a machine that was let in may take to say that it knows.
const CONFIRMATION: Duration = Duration::from_secs(60);

/// What a machine that joins says, again and again until it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::link) enum Asked {
    /// Let the machine with these keys in.
    Join(Keys),
    /// It has joined.
    Joined,
}

/// What the owner answers.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::link) struct Welcome {
    pub directory: Signed,
}

pub(in crate::link) async fn run(InviteArgs { name, folder, minutes }: InviteArgs) -> wire::Result<()> {
    let folder = folder.map_or_else(super::folder, Ok)?;
    let wait = Duration::from_secs(u64::from(minutes) * 60);
    let invitation = make(&Owner::open(&folder)?, name)?;
    let login = invitation.login()?.public_key();
    let invited = Invited { name: invitation.name.clone(), login: login.clone(), until: clock::now().plus(wait) };
    let (owner, ()) = Owner::change(&folder, |owner| add(owner, invited)).await?;
    let waited = tokio::select! {
        waited = wait_for(&owner, &folder, &invitation, wait) => waited,
        () = interrupted() => Err(Error::new(Code::Stopping, "the invitation is withdrawn")),
    };
    // Whatever happened, the line is worth nothing any more.
    let withdraw = |owner: &mut Owner| {
        owner.invitations.retain(|invited| invited.login != login);
        Ok(())
    };
    let withdrawn = match Owner::change(&folder, withdraw).await {
        Ok((owner, ())) => owner.apply().await.map(drop),
        Err(error) => Err(error),
    };
    waited?;
    withdrawn
}

fn add(owner: &mut Owner, invited: Invited) -> wire::Result<()> {
    let name = &invited.name;
    let refused = |what: String, help: String| Err(Error::new(Code::InvalidRequest, what).help(help));
    if owner.find(name).is_some() {
        return refused(format!("{name} has joined already"), format!("`claude-peers link revoke {name}` removes it"));
    }
    if owner.invitations.iter().any(|other| other.name == *name) {
        let help =
            "wait until it has joined, or stop that `invite`; if it was killed, the name is free again when its time is up";
        return refused(format!("{name} is invited already"), help.to_owned());
    }
    owner.invitations.push(invited);
    Ok(())
}

/// An invitation with new secrets.
fn make(owner: &Owner, name: MachineName) -> wire::Result<Invitation> {
    let (mut login, mut secret) = ([0; KEY], [0; KEY]);
    for seed in [&mut login, &mut secret] {
        getrandom::fill(seed).local("the system gives no random bytes")?;
    }
    let authority = match owner.has_authority {
        true => der(owner.authority())?,
        false => Vec::new(),
    };
    Ok(Invitation { hub: owner.hub.clone(), name, login, secret, owner: owner.signing()?.public_key(), authority })
}

async fn wait_for(owner: &Owner, folder: &Path, invitation: &Invitation, wait: Duration) -> wire::Result<()> {
    let (hub, name) = (owner.apply().await?, &invitation.name);
    let doing = format!("waiting for {name}");
    let mut joining = hub.client.subscribe(subject::join(name)).await.context(Code::Unreachable, &doing)?;
    hub.client.flush().await.context(Code::Unreachable, &doing)?;
    say(&format!("Run this on {name} within {} minutes; Ctrl-C withdraws it:", wait.as_secs() / 60));
    say("");
    print(&format!("claude-peers link join {invitation}"))?;
    say("");
    let late = || Error::new(Code::RequestTimeout, format!("{name} has not joined in time")).help("invite it again");
    let ended = || Error::new(Code::Unreachable, "the connection to the hub ended");
    let (mut deadline, mut is_in) = (Instant::now() + wait, false);
    loop {
        let message = match timeout_at(deadline, joining.next()).await {
            Ok(message) => message.ok_or_else(ended)?,
            Err(_) if is_in => {
                say(&format!("{name} was added, but did not confirm. Run `claude-peers link status` there."));
                return Ok(());
            }
            Err(_) => return Err(late()),
        };
        match read(&message, invitation) {
            Some(Asked::Join(keys)) => {
                let Some(welcome) = admit(folder, invitation, keys).await? else {
                    say(&format!(
                        "{name} is let in, and then another machine asked to join with the same line. It was not let in."
                    ));
                    continue;
                };
                answer(&hub, &message, invitation.seal(&welcome)?).await?;
                (deadline, is_in) = (Instant::now() + CONFIRMATION, true);
            }
            Some(Asked::Joined) if is_in => {
                say(&format!("{name} has joined."));
                return Ok(());
            }
            Some(Asked::Joined) | None => say("Refused a request to join that was not made with this invitation."),
        }
    }
}

/// The certificate in a PEM file, as DER.
fn der(file: PathBuf) -> wire::Result<Vec<u8>> {
    let text = store::read(&file)?;
    let base64: String = String::from_utf8_lossy(&text).lines().filter(|line| !line.starts_with("-----")).collect();
    let broken = |_| Error::new(Code::InvalidRequest, format!("{} holds no certificate", file.display()));
    data_encoding::BASE64.decode(base64.as_bytes()).map_err(broken)
}

/// What somebody says who has the invitation.
fn read(message: &Message, invitation: &Invitation) -> Option<Asked> {
    serde_json::from_slice(&invitation.open(&message.payload)?).ok()
}

/// Lets the machine in, once. Returns when the hub knows it; none if another was let in with the same invitation.
async fn admit(folder: &Path, invitation: &Invitation, Keys { login, seal }: Keys) -> wire::Result<Option<Welcome>> {
    let (name, invited_as) = (&invitation.name, invitation.login()?.public_key());
    let machine = Machine { name: name.clone(), login, seal, joined: clock::now() };
    let admitted = Owner::change(folder, |owner| {
        if let Some(known) = owner.find(&machine.name) {
            return Ok(known.login == machine.login && known.seal == machine.seal);
        }
        if owner.invitations.iter().all(|invited| invited.login != invited_as) {
            return Err(Error::new(Code::Forbidden, format!("the invitation of {name} was withdrawn")).help("invite it again"));
        }
        KeyPair::from_public_key(&machine.login).map_err(broken)?;
        XKey::from_public_key(&machine.seal).map_err(broken)?;
        owner.machines.push(machine);
        owner.serial += 1;
        Ok(true)
    });
    let (owner, is_in) = admitted.await?;
    if !is_in {
        return Ok(None);
    }
    owner.apply().await?;
    Ok(Some(Welcome { directory: owner.directory()? }))
}

async fn answer(hub: &Hub, message: &Message, sealed: Vec<u8>) -> wire::Result<()> {
    let doing = "answering the machine that joins";
    let reply = message.reply.as_ref().ok_or("it does not wait for an answer").local(doing)?;
    hub.say(reply.to_string(), sealed, doing).await
}

async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let Ok(mut signals) = kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>() else {
        return std::future::pending().await;
    };
    std::future::poll_fn(|context| match signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}
