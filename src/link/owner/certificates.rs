//! The hub's certificate, and the authority of its own that signs it.

use crate::wire::{self, Code, Error};
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
    let failed = |error: rcgen::Error| Error::new(Code::Internal, format!("making the hub's certificate: {error}"));
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = lasting(Vec::new(), "claude-peers").map_err(failed)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = params.self_signed(&key).map_err(failed)?;
    let issuer = Issuer::new(params, key);
    let hub_key = KeyPair::generate().map_err(failed)?;
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = lasting([hosts, &local].concat(), "claude-peers hub").map_err(failed)?;
    // Servers of a cluster are clients of each other.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let hub = params.signed_by(&hub_key, &issuer).map_err(failed)?;
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
