//! `init`: sets up a hub, and makes this user the owner of the machines.

use super::{ADMIN, AUTHORITY, OWNER, Owner, SIGNING, certificates, config};
use crate::{
    link::{args::InitArgs, key, say, store},
    wire::{self, Code, Error},
};
use std::{fs, path::PathBuf};

/// NATS' own port.
const PORT: u16 = 4222;

pub(in crate::link) async fn run(args: InitArgs) -> wire::Result<()> {
    let InitArgs { addresses, folder, apply, credentials, replicas } = args;
    let folder = folder.map_or_else(super::folder, Ok)?;
    let folder = std::path::absolute(&folder).map_err(|error| crate::link::error::local("the folder", &error))?;
    if fs::exists(folder.join(OWNER)).is_ok_and(|there| there) {
        let what = format!("{} has a hub already", folder.display());
        return Err(Error::new(Code::InvalidRequest, what).help("name another folder with `--folder`"));
    }
    let hosts = addresses.iter().map(|address| host(address)).collect::<wire::Result<Vec<_>>>()?;
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
        credentials: credentials.clone(),
        has_authority,
        folder: folder.clone(),
    };
    store::create_folder(&owner.hub_folder())?;
    key::make_signing(&folder.join(SIGNING))?;
    key::make_login(&folder.join(ADMIN))?;
    if credentials.is_none() {
        write_hub(&owner, &hosts).await?;
    }
    owner.write()?;
    explain(&owner, credentials);
    Ok(())
}

async fn write_hub(owner: &Owner, hosts: &[(String, u16)]) -> wire::Result<()> {
    let port = hosts.first().map_or(PORT, |(_, port)| *port);
    if hosts.iter().any(|(_, other)| *other != port) {
        return Err(Error::new(Code::InvalidRequest, "the servers of a hub use the same port"));
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

fn explain(owner: &Owner, credentials: Option<PathBuf>) {
    let folder = owner.hub_folder();
    match credentials {
        Some(_) => say("You own the machines on this hub. For each, its operators hand out credentials that allow it what"),
        None => say(&format!("The hub's configuration is in {}.", folder.display())),
    }
    match owner.credentials {
        Some(_) => say("`claude-peers link permissions NAME` prints. Then run `claude-peers link invite NAME`."),
        None => {
            say("Start the hub, then invite the first machine:");
            say("");
            say(&format!("  systemctl --user enable --now {}", config::unit_file(&folder).display()));
            say("  claude-peers link invite NAME");
        }
    }
}

/// Host and port of an address such as `hub.example`, `hub.example:4222` or `[2001:db8::1]:4222`.
fn host(address: &str) -> wire::Result<(String, u16)> {
    let unusable = || {
        Error::new(Code::InvalidRequest, format!("{address:?} is no address of a hub"))
            .help("use HOST or HOST:PORT, as the machines reach it")
    };
    let bare = address.rsplit_once("://").map_or(address, |(_, bare)| bare);
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
