//! `join`: this machine joins the others.

use super::{
    args::JoinArgs,
    home::{self, Home},
    hub::{Access, Login},
    invitation::Invitation,
    key::broken,
    owner::{invite::Welcome, joins},
    say, service, store, subject,
};
use crate::wire::{self, Code, Error};
use data_encoding::BASE64;
use nkeys::XKey;
use std::{io::Read, path::Path, time::Duration};
use tokio::time::timeout;

/// How long the owner's side may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read as an invitation.
const LONGEST: u64 = 64 * 1024;

pub(super) async fn run(JoinArgs { line, credentials }: JoinArgs) -> wire::Result<()> {
    if let Some(home) = Home::find()? {
        let what = format!("this machine has joined already, as {}", home.name);
        return Err(Error::new(Code::InvalidRequest, what).help("`claude-peers link leave` ends that"));
    }
    let line = match line {
        Some(line) if line != "-" => line,
        _ => read_line()?,
    };
    let invitation: Invitation = line.parse()?;
    let folder = home::folder()?;
    let keys = home::make_keys(&folder)?;
    let has_authority = !invitation.authority.is_empty();
    if has_authority {
        store::write(&home::authority_in(&folder), pem(&invitation.authority).as_bytes())?;
    }
    let credentials = credentials.map(std::path::absolute).transpose();
    let credentials = credentials.map_err(|error| super::error::local("the file of credentials", &error))?;
    let asked = serde_json::to_vec(&keys).map_err(|error| Error::new(Code::Internal, format!("writing JSON: {error}")))?;
    let Welcome { directory } = ask(&invitation, &folder, credentials.as_deref(), &asked).await?;
    let known = directory.open(&invitation.owner)?;
    if known.get(&invitation.name).is_none_or(|member| member.seal != keys.seal) {
        return Err(Error::new(Code::Forbidden, "the owner's answer does not name this machine").help("invite it again"));
    }
    let Invitation { hub, name, owner, .. } = invitation;
    let home = Home { name, hub, owner, has_authority, credentials, folder };
    home.keep_directory(&directory)?;
    home.keep()?;
    home.access()?.connect(subject::inbox(&home.name)).await?;
    say(&format!("This machine has joined as {}.", home.name));
    service::start().await
}

fn read_line() -> wire::Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().take(LONGEST).read_to_string(&mut line);
    read.map(|_| line).map_err(|error| super::error::local("reading the invitation", &error))
}

/// Asks the owner to let this machine in.
async fn ask(invitation: &Invitation, folder: &Path, credentials: Option<&Path>, keys: &[u8]) -> wire::Result<Welcome> {
    let login = match credentials {
        Some(file) => Login::Credentials(file.to_owned()),
        None => Login::Key(invitation.login()?.seed().map_err(|error| broken(&error))?),
    };
    let authority = (!invitation.authority.is_empty()).then(|| home::authority_in(folder));
    let access = Access { addresses: invitation.hub.clone(), login, authority };
    let used_up = |error: Error| match error.code {
        Code::Forbidden if credentials.is_none() => Error::new(Code::Forbidden, "this invitation is used up or withdrawn")
            .help(format!("`claude-peers link invite {}` makes a new one", invitation.name)),
        _ => error,
    };
    let inbox = match credentials {
        Some(_) => subject::inbox(&invitation.name),
        None => subject::join_inbox(&invitation.name),
    };
    let hub = access.connect(inbox).await.map_err(used_up)?;
    let secret: XKey = invitation.secret();
    let sealed = secret.seal(keys, &secret).map_err(|error| broken(&error))?;
    let (subject, _) = joins(&invitation.name);
    let answer = timeout(PATIENCE, hub.client.request(subject, sealed.into())).await;
    let nobody = |why: &dyn std::fmt::Display| {
        Error::new(Code::Unreachable, format!("nobody has answered: {why}"))
            .help("`claude-peers link invite` must wait while this machine joins")
    };
    let answer = answer.map_err(|_| nobody(&"the time is over"))?.map_err(|error| nobody(&error))?;
    let text = secret.open(&answer.payload, &secret).map_err(|_| nobody(&"the answer is none of the owner's"))?;
    serde_json::from_slice(&text).map_err(|error| nobody(&error))
}

/// A certificate as PEM.
fn pem(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let lines: Vec<&str> = base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
