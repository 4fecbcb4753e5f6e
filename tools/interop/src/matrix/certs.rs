//! Certificates of a run: an authority, a leaf, and a chain of nine for the amplification limit.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    string::Ia5String,
};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Certificates between the authority and the leaf of the long chain, which has nine in all.
const INTERMEDIATES: usize = 8;

/// Those nearest to the root, which clients trust as well: rustls follows a path through six
/// authorities at most, and OpenSSL looks for the issuers of one that it trusts among the trusted.
const TRUSTED: usize = 4;

/// Files of one run.
#[derive(Clone, Debug)]
pub struct Certs {
    /// What clients trust.
    pub ca: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// The leaf alone.
    pub short: PathBuf,
    /// Nine certificates, leaf first.
    pub long: PathBuf,
}

fn failed(e: rcgen::Error) -> io::Error {
    io::Error::other(e)
}

fn authority(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(DnType::CommonName, "localhost");
    params.subject_alt_names = vec![
        SanType::DnsName(Ia5String::try_from("localhost")?),
        SanType::IpAddress(IpAddr::from([127, 0, 0, 1])),
        SanType::IpAddress(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Certs {
    /// Makes new ones in `dir`.
    pub fn make(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let certs = Self {
            ca: dir.join("ca.pem"),
            key: dir.join("key.pem"),
            short: dir.join("cert.pem"),
            long: dir.join("chain.pem"),
        };
        certs
            .write()
            .map_err(failed)?
            .into_iter()
            .try_for_each(|(path, text)| fs::write(path, text))?;
        Ok(certs)
    }

    fn write(&self) -> Result<[(&Path, String); 4], rcgen::Error> {
        let ca_key = KeyPair::generate()?;
        let ca_params = authority("interop authority")?;
        let mut ca = ca_params.self_signed(&ca_key)?.pem();
        let key = KeyPair::generate()?;
        let root = Issuer::new(ca_params, ca_key);
        let short = leaf()?.signed_by(&key, &root)?.pem();

        let mut issuer = root;
        let mut chain = Vec::new();
        for n in 0..INTERMEDIATES {
            // A long name makes the certificate as large as those of the Internet.
            let filler = "x".repeat(200);
            let params = authority(&format!("intermediate {n} {filler}"))?;
            let next = KeyPair::generate()?;
            chain.push(params.signed_by(&next, &issuer)?.pem());
            issuer = Issuer::new(params, next);
        }
        ca.push_str(&chain[..TRUSTED].concat());
        chain.push(leaf()?.signed_by(&key, &issuer)?.pem());
        chain.reverse();
        Ok([
            (&self.ca, ca),
            (&self.key, key.serialize_pem()),
            (&self.short, short),
            (&self.long, chain.concat()),
        ])
    }
}
