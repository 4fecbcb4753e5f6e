//! Certificates of a run: an authority and a P-256 leaf, as text and in a directory for libraries
//! and processes that want files. The directory is private and goes with the value.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use corelane_perf::tls::SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

use crate::Fault;

const FILES: [&str; 3] = ["authority.pem", "leaf.pem", "key.pem"];

/// What a server shows and a client trusts.
pub struct Certificates {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The server's certificate, PEM.
    pub leaf: String,
    /// The server's key, PKCS #8 in PEM.
    pub key: String,
    directory: PathBuf,
    /// Whether this value made the directory, and removes it.
    is_owner: bool,
}

impl Certificates {
    /// New ones.
    ///
    /// # Errors
    /// When they cannot be made or written.
    pub fn make() -> Result<Self, Fault> {
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name
            .push(DnType::CommonName, "corelane-perf authority");
        let authority = ca.self_signed(&ca_key)?.pem();

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut leaf = CertificateParams::new(vec![SERVER_NAME.into()])?;
        leaf.distinguished_name
            .push(DnType::CommonName, SERVER_NAME);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;

        let made = Self {
            authority,
            leaf: leaf.pem(),
            key: key.serialize_pem(),
            directory: new_directory()?,
            is_owner: true,
        };
        for (name, text) in FILES.iter().zip([&made.authority, &made.leaf, &made.key]) {
            fs::write(made.directory.join(name), text)?;
        }
        Ok(made)
    }

    /// Those that another process made in `directory`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn load(directory: &Path) -> Result<Self, Fault> {
        let read = |name| fs::read_to_string(directory.join(name));
        Ok(Self {
            authority: read(FILES[0])?,
            leaf: read(FILES[1])?,
            key: read(FILES[2])?,
            directory: directory.into(),
            is_owner: false,
        })
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file with [`authority`](Self::authority).
    pub fn authority_file(&self) -> PathBuf {
        self.directory.join(FILES[0])
    }

    /// The file with [`leaf`](Self::leaf).
    pub fn leaf_file(&self) -> PathBuf {
        self.directory.join(FILES[1])
    }

    /// The file with [`key`](Self::key).
    pub fn key_file(&self) -> PathBuf {
        self.directory.join(FILES[2])
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        if self.is_owner {
            // What cannot be removed stays in the directory of temporary files.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A directory that only this user may read, and that nobody had before.
fn new_directory() -> io::Result<PathBuf> {
    let pid = std::process::id();
    for n in 0..1000 {
        let path = std::env::temp_dir().join(format!("corelane-peer-{pid}-{n}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map(|()| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_back_and_go_with_their_maker() {
        let made = Certificates::make().unwrap();
        let other = Certificates::make().unwrap();
        assert_ne!(made.directory(), other.directory());
        assert!(made.key.contains("PRIVATE KEY"));
        let read = Certificates::load(made.directory()).unwrap();
        assert_eq!(
            (&read.authority, &read.leaf, &read.key),
            (&made.authority, &made.leaf, &made.key)
        );
        let directory = made.directory().to_path_buf();
        drop(read);
        assert!(made.leaf_file().exists() && made.key_file().exists());
        assert!(made.authority_file().exists());
        drop(made);
        assert!(!directory.exists());
        assert!(Certificates::load(&directory).is_err());
    }
}
