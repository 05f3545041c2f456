//! `join`: this machine joins the others.

use super::{
    access::{Access, Login},
    args::JoinArgs,
    home::{self, Home, Keys},
    hub::Hub,
    invitation::Invitation,
    key::broken,
    owner::invite::{Asked, Welcome},
    report::{Context, say},
    retry::PAUSE,
    service, store, subject,
};
use crate::wire::{self, Code, Error};
use async_nats::Request;
use data_encoding::BASE64;
use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    path::Path,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long the owner's side may take to answer, and how long one question waits.
const PATIENCE: Duration = Duration::from_secs(60);
const TRY: Duration = Duration::from_secs(15);
/// How long the hub may refuse the invitation's key: it may be reading its configuration.
const RELOAD: Duration = Duration::from_secs(2);
/// The most that is read as an invitation.
const LONGEST: u64 = 64 * 1024;

pub(super) async fn run(JoinArgs { line, credentials, leaf, domain }: JoinArgs) -> wire::Result<()> {
    if let Some(home) = Home::find()? {
        let what = format!("this machine has joined already, as {}", home.name);
        return Err(Error::new(Code::InvalidRequest, what).help("`claude-peers link leave` ends that"));
    }
    let line = match line {
        Some(line) if line != "-" => line,
        _ => read_line()?,
    };
    let mut invitation: Invitation = line.parse()?;
    invitation.hub = leaf.unwrap_or(invitation.hub);
    let folder = home::folder()?;
    let keys = home::make_keys(&folder)?;
    let has_authority = !invitation.authority.is_empty();
    if has_authority {
        store::write(&home::authority_in(&folder), pem(&invitation.authority).as_bytes())?;
    }
    let credentials = credentials.map(std::path::absolute).transpose().local("the file of credentials")?;
    let seal = keys.seal.clone();
    let hub = connect(&invitation, &folder, credentials.as_deref()).await?;
    let Welcome { directory } = ask(&hub, &invitation, keys).await?;
    let known = directory.open(&invitation.owner)?;
    if known.get(&invitation.name).is_none_or(|member| member.seal != seal) {
        return Err(Error::new(Code::Forbidden, "the owner's answer does not name this machine").help("invite it again"));
    }
    let (name, addresses, owner) = (invitation.name.clone(), invitation.hub.clone(), invitation.owner.clone());
    let home = Home { name, hub: addresses, owner, has_authority, credentials, domain, folder };
    home.keep_directory(&directory)?;
    home.keep()?;
    let not_linked = |error: Error| {
        let what = format!("this machine has joined, but is not linked yet: {}", error.message);
        Error::new(error.code, what).help("`claude-peers link status` checks the link; `claude-peers-link run` runs it")
    };
    home.access()?.connect_patiently(&subject::inbox(&home.name), PATIENCE).await.map_err(not_linked)?;
    // Then the owner withdraws the invitation. If this gets lost, the owner waits a minute longer.
    let joined = invitation.seal(&Asked::Joined)?;
    hub.say(subject::join(&home.name), joined, "telling the owner").await.map_err(not_linked)?;
    say(&format!("This machine has joined as {}.", home.name));
    service::start().await
}

fn read_line() -> wire::Result<String> {
    let (mut line, input) = (String::new(), std::io::stdin());
    if input.is_terminal() {
        say("Paste the invitation, then press Enter:");
    }
    let read = BufReader::new(input.take(LONGEST)).read_line(&mut line);
    read.map(|_| line).local("reading the invitation")
}

/// Connects to the hub with what the invitation has.
async fn connect(invitation: &Invitation, folder: &Path, credentials: Option<&Path>) -> wire::Result<Hub> {
    let login = match credentials {
        Some(file) => Login::Credentials(file.to_owned()),
        None => Login::Key(invitation.login()?.seed().map_err(broken)?),
    };
    let authority = (!invitation.authority.is_empty()).then(|| home::authority_in(folder));
    // Joining needs no JetStream.
    let access = Access { addresses: invitation.hub.clone(), login, authority, domain: None };
    let used_up = |error: Error| match error.code {
        Code::Forbidden if credentials.is_none() => {
            Error::new(Code::Forbidden, "the hub rejects this invitation: it is used up, withdrawn or too old")
                .help(format!("`claude-peers link invite {}` makes a new one", invitation.name))
        }
        _ => error,
    };
    let inbox = match credentials {
        Some(_) => subject::inbox(&invitation.name),
        None => subject::join_inbox(&invitation.name),
    };
    access.connect_patiently(&inbox, RELOAD).await.map_err(used_up)
}

/// Asks the owner to let this machine in, again and again until there is an answer: while the hub reads its configuration, one may get
/// lost.
async fn ask(hub: &Hub, invitation: &Invitation, keys: Keys) -> wire::Result<Welcome> {
    let nobody = |why: &dyn std::fmt::Display| {
        Error::new(Code::Unreachable, format!("no answer to this invitation: {why}"))
            .help(format!("keep `claude-peers link invite {}` running until this machine has joined", invitation.name))
    };
    let (subject, asked) = (subject::join(&invitation.name), Asked::Join(keys));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = Request::new().payload(invitation.seal(&asked)?.into()).timeout(Some(TRY));
        let error = match hub.client.send_request(subject.clone(), request).await {
            Ok(answer) => {
                let text = invitation.open(&answer.payload).ok_or_else(|| nobody(&"the answer is none of the owner's"))?;
                return serde_json::from_slice(&text).map_err(|error| nobody(&error));
            }
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(nobody(&error));
        }
        sleep(PAUSE).await;
    }
}

fn pem(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
