//! `init`: sets up a hub, and makes this user the owner of the machines.

use super::{ADMIN, AUTHORITY, OWNER, Owner, SIGNING, certificates, config};
use crate::{
    link::{
        args::InitArgs,
        key,
        report::{Context, say},
        store,
    },
    wire::{self, Code, Error},
};
use std::fs;

/// NATS' own port.
const PORT: u16 = 4222;

pub(in crate::link) async fn run(args: InitArgs) -> wire::Result<()> {
    let InitArgs { addresses, folder, apply, credentials, replicas } = args;
    let replicas = usize::from(replicas);
    let folder = folder.map_or_else(super::folder, Ok)?;
    let folder = std::path::absolute(&folder).local("the folder")?;
    if fs::exists(folder.join(OWNER)).is_ok_and(|there| there) {
        let what = format!("{} has a hub already", folder.display());
        let help = "to start over, stop the hub and remove that folder, and let all machines join again; or name another with `--folder`";
        return Err(Error::new(Code::InvalidRequest, what).help(help));
    }
    if replicas > addresses.len() && credentials.is_none() {
        let what = format!("{replicas} replicas need {replicas} servers, and {} are named", addresses.len());
        return Err(Error::new(Code::InvalidRequest, what).help("name the address of each server"));
    }
    if let Some(file) = &credentials {
        fs::metadata(file).local(format_args!("reading {}", file.display()))?;
    }
    let hosts = addresses.iter().map(|address| host(address, credentials.is_some())).collect::<wire::Result<Vec<_>>>()?;
    let hub = addresses.iter().zip(&hosts).map(|(address, (host, port))| match credentials {
        Some(_) => address.clone(),
        None if host.contains(':') => format!("[{host}]:{port}"),
        None => format!("{host}:{port}"),
    });
    let hub = hub.collect::<Vec<_>>().join(",");
    let has_authority = credentials.is_none();
    let owner = Owner {
        hub,
        serial: 1,
        machines: Vec::new(),
        invitations: Vec::new(),
        replicas,
        apply,
        credentials,
        has_authority,
        folder: folder.clone(),
    };
    store::create_folder(&owner.hub_folder())?;
    key::make_signing(&folder.join(SIGNING))?;
    key::make_login(&folder.join(ADMIN))?;
    if owner.credentials.is_none() {
        write_hub(&owner, &hosts).await?;
    }
    owner.write()?;
    explain(&owner);
    Ok(())
}

async fn write_hub(owner: &Owner, hosts: &[(String, u16)]) -> wire::Result<()> {
    let port = hosts.first().map_or(PORT, |(_, port)| *port);
    if hosts.iter().any(|(_, other)| *other != port) {
        return Err(Error::new(
            Code::InvalidRequest,
            "the addresses have different ports; all servers of a cluster must use the same one",
        ));
    }
    let hosts: Vec<String> = hosts.iter().map(|(host, _)| host.clone()).collect();
    let made = certificates::make(&hosts)?;
    let folder = owner.hub_folder();
    store::write(&folder.join(AUTHORITY), made.authority.as_bytes())?;
    store::write(&folder.join("hub.pem"), made.hub.as_bytes())?;
    store::write(&folder.join("hub.key"), made.hub_key.as_bytes())?;
    let version = config::version().await;
    config::write_main(owner, port, version.is_some_and(|version| version >= (2, 10)))
}

fn explain(owner: &Owner) {
    let folder = owner.hub_folder();
    let unit = config::unit_file(&folder);
    let lines = match (&owner.credentials, &owner.apply) {
        (Some(_), _) => "Ask the hub's operators for a file of credentials for each machine. `claude-peers link permissions NAME` prints what it\n\
                         must be allowed. Then run `claude-peers link invite NAME`."
            .to_owned(),
        (None, Some(_)) => format!(
            "Copy {} to the hub, set WorkingDirectory= in claude-peers-hub.service to its place there, and\n\
             start that unit. Then run `claude-peers link invite NAME` here.",
            folder.display()
        ),
        (None, None) => format!(
            "The hub's configuration is in {}. Start the hub, then invite the first machine:\n\n  \
             systemctl --user enable --now {}\n  claude-peers link invite NAME",
            folder.display(),
            unit.display()
        ),
    };
    say(&lines);
}

/// Host and port of an address such as `hub.example`, `hub.example:4222` or `[2001:db8::1]:4222`.
fn host(address: &str, credentials: bool) -> wire::Result<(String, u16)> {
    let unusable = || {
        Error::new(Code::InvalidRequest, format!("{address:?} is no address of a hub"))
            .help("use HOST or HOST:PORT, as the machines reach it")
    };
    let bare = match credentials {
        true => address.rsplit_once("://").map_or(address, |(_, bare)| bare),
        false => address,
    };
    let is_v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match bare.rsplit_once(':') {
        _ if is_v6(bare) => (bare, PORT),
        Some((host, port)) => (host, port.parse().map_err(|_| unusable())?),
        None => (bare, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
    match (is_name || is_v6(host)) && port != 0 {
        true => Ok((host.to_owned(), port)),
        false => Err(unusable()),
    }
}
