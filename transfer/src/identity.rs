//! Who a site is: one key, one self-signed certificate, one fingerprint.
//!
//! The certificate carries no authority and no expiry that anyone looks at: whom a site trusts is a list of
//! fingerprints, and no rule of UMS depends on a clock. It exists because TLS authenticates with certificates.
//!
//! The key is ECDSA P-256, which rustls, OpenSSL and browsers all take; Ed25519 would lock browsers out of the
//! site's dashboard.
//!
//! Key and certificate live in **one** file, so that they appear together or not at all: an identity of which half
//! was written before a power cut would be a different site after it.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ums_model::names::Fingerprint;

use crate::tls::provider;

/// The file that holds the identity: the key as PKCS#8 and the certificate, both PEM.
const FILE: &str = "identity.pem";
/// The identity that is to take its place.
const NEXT: &str = "identity.next.pem";
/// Where it is written before it gets its name.
const DRAFT: &str = ".identity.pem.draft";
/// The name in every certificate and in every TLS hello: names prove nothing here, and this one tells nothing.
pub(crate) const CERTIFICATE_NAME: &str = "ums-site";

/// An identity could not be loaded or made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum IdentityError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// Others than the owner may read the key (or write the directory): it must be taken for stolen.
    #[error("{} has mode {mode:04o}, others than its owner may get at the key; it must be {wanted:04o}", path.display())]
    Exposed { path: PathBuf, mode: u32, wanted: u32 },
    /// The file is not what this module writes.
    #[error("{} is no identity: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    /// Making a key or a certificate failed.
    #[error("cannot make a key and a certificate")]
    Generate { source: rcgen::Error },
    /// The TLS library does not take the key.
    #[error("cannot use the identity's key")]
    Key { source: rustls::Error },
}

/// A site's key and certificate. Cheap to clone; the key never leaves it.
#[derive(Debug, Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Loads the identity in `dir`, or makes one if there is none: `dir` with mode 0700 (its parent must exist), in
    /// it one file with mode 0600. Blocks on the disk.
    ///
    /// `Ok`: the identity is durable, and every later call returns the same one, also if two calls race. `Err`:
    /// there is the old identity or none, never half of one. Safe to repeat.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        private_dir(dir)?;
        let path = dir.join(FILE);
        // Held until the end of this function, by one caller at a time and only for as long as one file is written.
        let _lock = lock(dir)?;
        match Self::load(&path) {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                publish(dir, &path, &new_pem()?)?;
                Self::load(&path)
            }
            loaded => loaded,
        }
    }

    /// The identity that is to take the place of the one in `dir`, if there is one. Blocks on the disk.
    pub fn next(dir: &Path) -> Result<Option<Self>, IdentityError> {
        match Self::load(&dir.join(NEXT)) {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            loaded => loaded.map(Some),
        }
    }

    /// The identity that is to take the place of the one in `dir`; makes it if there is none. Blocks on the disk.
    ///
    /// `Ok`: it is durable, and the one that holds is as it was. Safe to repeat: until the change it is the same one.
    pub fn make_next(dir: &Path) -> Result<Self, IdentityError> {
        private_dir(dir)?;
        let _lock = lock(dir)?;
        if let Some(next) = Self::next(dir)? {
            return Ok(next);
        }
        let path = dir.join(NEXT);
        publish(dir, &path, &new_pem()?)?;
        Self::load(&path)
    }

    /// Puts the next identity in the place of the one in `dir`, in one step, and returns it. The one before is gone.
    /// Safe to repeat: where there is no next one, that has been done. Blocks on the disk.
    pub fn promote_next(dir: &Path) -> Result<Self, IdentityError> {
        private_dir(dir)?;
        let _lock = lock(dir)?;
        let (from, to) = (dir.join(NEXT), dir.join(FILE));
        let failed = |action| {
            let path = from.clone();
            move |source| IdentityError::File { action, path, source }
        };
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("rename")(error)),
            _ => {}
        }
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the directory of"))?;
        Self::load(&to)
    }

    /// An identity that lives only in memory.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        Self::from_pem(new_pem()?.as_bytes(), Path::new("(memory)"))
    }

    /// What other sites know this site by: the SHA-256 of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// For the TLS configurations.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    fn load(path: &Path) -> Result<Self, IdentityError> {
        let failed = |action| move |source| IdentityError::File { action, path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed("open"))?;
        not_exposed(path, &file.metadata().map_err(failed("look at"))?.permissions(), 0o600)?;
        let mut pem = Vec::new();
        io::Read::read_to_end(&mut file, &mut pem).map_err(failed("read"))?;
        Self::from_pem(&pem, path)
    }

    fn from_pem(pem: &[u8], path: &Path) -> Result<Self, IdentityError> {
        let malformed = |error: rustls::pki_types::pem::Error| IdentityError::Malformed {
            path: path.to_owned(),
            why: error.to_string(),
        };
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(malformed)?;
        let certificate = CertificateDer::from_pem_slice(pem).map_err(malformed)?;
        let fingerprint = fingerprint_of(&certificate);
        let certified = CertifiedKey::from_der(vec![certificate], key, &provider())
            .map_err(|source| IdentityError::Key { source })?;
        Ok(Self { certified: Arc::new(certified), fingerprint })
    }
}

/// The fingerprint of a certificate.
pub(crate) fn fingerprint_of(certificate: &CertificateDer<'_>) -> Fingerprint {
    let hash = digest::digest(&digest::SHA256, certificate);
    Fingerprint(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

fn new_pem() -> Result<String, IdentityError> {
    let make = || {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])?;
        params.distinguished_name.push(rcgen::DnType::CommonName, CERTIFICATE_NAME);
        let certificate = params.self_signed(&key)?;
        Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
    };
    make().map_err(|source| IdentityError::Generate { source })
}

fn private_dir(dir: &Path) -> Result<(), IdentityError> {
    let failed = |action| move |source| IdentityError::File { action, path: dir.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create")(error)),
        _ => not_exposed(dir, &dir.metadata().map_err(failed("look at"))?.permissions(), 0o700),
    }
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let locked = File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
    locked.map_err(|source| IdentityError::File { action: "lock", path: dir.to_owned(), source })
}

fn not_exposed(path: &Path, permissions: &Permissions, wanted: u32) -> Result<(), IdentityError> {
    let mode = permissions.mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(IdentityError::Exposed { path: path.to_owned(), mode, wanted })
    }
}

/// Makes `content` durable under another name and then renames it, so that no reader ever sees a part. The caller
/// holds the lock on the directory, so a draft that is there already is a leftover of a crash.
fn publish(dir: &Path, path: &Path, content: &str) -> Result<(), IdentityError> {
    let draft = dir.join(DRAFT);
    let failed = |action| {
        let path = draft.clone();
        move |source| IdentityError::File { action, path, source }
    };
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove")(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft).map_err(failed("create"))?;
    file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    std::fs::rename(&draft, path).map_err(failed("rename"))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync the directory of"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_second_call_loads_what_the_first_made() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        let first = Identity::load_or_create(&dir).unwrap();
        let second = Identity::load_or_create(&dir).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!((mode(&dir), mode(&dir.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a draft with the key was left behind");
    }

    #[test]
    fn two_at_once_agree() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        let prints: HashSet<_> = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::load_or_create(&dir).unwrap())).collect();
            racers.into_iter().map(|racer| racer.join().unwrap().fingerprint()).collect()
        });
        assert_eq!(prints.len(), 1);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn the_next_one_takes_its_place() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        let old = Identity::load_or_create(&dir).unwrap();
        assert!(Identity::next(&dir).unwrap().is_none());
        let next = Identity::make_next(&dir).unwrap();
        assert_eq!(Identity::make_next(&dir).unwrap().fingerprint(), next.fingerprint());
        assert_eq!(mode(&dir.join(NEXT)), 0o600);
        assert_ne!(next.fingerprint(), old.fingerprint());
        assert_eq!(Identity::load_or_create(&dir).unwrap().fingerprint(), old.fingerprint());
        for _ in 0..2 {
            assert_eq!(Identity::promote_next(&dir).unwrap().fingerprint(), next.fingerprint());
        }
        assert_eq!(Identity::load_or_create(&dir).unwrap().fingerprint(), next.fingerprint());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "the old key was left behind");
    }

    #[test]
    fn an_exposed_key_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        Identity::load_or_create(&dir).unwrap();
        fs::set_permissions(dir.join(FILE), Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(&dir).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed { mode: 0o640, .. }), "{error:?}");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("identity");
        Identity::load_or_create(&dir).unwrap();
        let other = Identity::load_or_create(&home.path().join("other")).unwrap();
        let pem = fs::read_to_string(dir.join(FILE)).unwrap();
        let (key, _) = pem.split_once("-----BEGIN CERTIFICATE").unwrap();
        fs::write(dir.join(FILE), key).unwrap();
        assert!(matches!(Identity::load_or_create(&dir), Err(IdentityError::Malformed { .. })));
        // A key next to somebody else's certificate.
        let foreign = fs::read_to_string(home.path().join("other").join(FILE)).unwrap();
        let (_, certificate) = foreign.split_once("-----BEGIN CERTIFICATE").unwrap();
        fs::write(dir.join(FILE), format!("{key}-----BEGIN CERTIFICATE{certificate}")).unwrap();
        assert!(matches!(Identity::load_or_create(&dir), Err(IdentityError::Key { .. })));
        assert_ne!(other.fingerprint(), Identity::ephemeral().unwrap().fingerprint());
    }
}
