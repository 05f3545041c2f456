//! The hub's certificate, and the authority of its own that signs it.

use crate::{link::report::Context, wire};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// In PEM.
pub(super) struct Certificates {
    pub authority: String,
    pub hub: String,
    pub hub_key: String,
}

/// Makes an authority and a certificate for the hub, by the names and addresses by which it is reached. The authority's key is thrown
/// away: nobody else gets a certificate from it.
pub(super) fn make(hosts: &[String]) -> wire::Result<Certificates> {
    signed(hosts).local("making the hub's certificate")
}

fn signed(hosts: &[String]) -> Result<Certificates, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = lasting(Vec::new(), "claude-peers")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let hub_key = KeyPair::generate()?;
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = lasting([hosts, &local].concat(), "claude-peers hub")?;
    // Servers of a cluster are clients of each other.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let hub = params.signed_by(&hub_key, &issuer)?;
    Ok(Certificates { authority: authority.pem(), hub: hub.pem(), hub_key: hub_key.serialize_pem() })
}

/// A certificate that lasts from long ago, because clocks may be wrong, until the hub is set up anew.
fn lasting(names: Vec<String>, name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2099, 1, 1);
    Ok(params)
}
