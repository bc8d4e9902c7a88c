//! A development authority: a certificate of its own, and one for each role.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::{AUTHORITY_FILE, COORDINATOR, WORKER};

/// Clocks of a cluster's machines differ: what is made now is valid for those that are a little behind.
const BEHIND: Duration = Duration::hours(1);

/// Why a set could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// There is a set, or part of one.
    #[error("{} is there already: name another folder, or remove the set that is in this one", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The files, certificates before keys.
    pub files: Vec<PathBuf>,
    /// When all of them expire.
    pub expires: OffsetDateTime,
}

/// Makes an authority and a certificate and key for each role in a folder, valid for so many days from `now` on: `ca.pem`, `coordinator.pem`,
/// `worker.pem` and their `.key`, which only this user may read. The authority's key signs further workers' certificates; a cluster
/// does not need it. Keys are of the curve P-256.
///
/// # Errors
/// [`MakeError`]; nothing that was there is overwritten.
pub fn make(folder: &Path, days: u32, now: OffsetDateTime) -> Result<Made, MakeError> {
    let written = |path: &Path| {
        let path = path.to_path_buf();
        move |source| MakeError::Write { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(written(folder))?;
    let (begins, expires) = (now - BEHIND, now + Duration::days(i64::from(days)));

    let key = KeyPair::generate()?;
    // Told apart by name, so that a certificate of another one is not taken for a forged one of this.
    let print = key.public_key_raw().last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let mut params = named(&format!("strath development authority {print:08x}"), begins, expires)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?;
    let mut texts = vec![(AUTHORITY_FILE, certificate.pem(), 0o644), ("ca.key", key.serialize_pem(), 0o600)];
    let issuer = Issuer::new(params, key);

    let roles = [
        ("coordinator.pem", "coordinator.key", COORDINATOR, ExtendedKeyUsagePurpose::ServerAuth),
        ("worker.pem", "worker.key", WORKER, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (certificate_file, key_file, name, usage) in roles {
        let key = KeyPair::generate()?;
        let mut params = named(name, begins, expires)?;
        params.subject_alt_names = CertificateParams::new([name.to_owned()])?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer)?;
        texts.push((certificate_file, certificate.pem(), 0o644));
        texts.push((key_file, key.serialize_pem(), 0o600));
    }

    texts.sort_by_key(|(_, _, mode)| std::cmp::Reverse(*mode));
    let files: Vec<PathBuf> = texts.iter().map(|(file, _, _)| folder.join(file)).collect();
    if let Some(there) = files.iter().find(|file| file.exists()) {
        return Err(MakeError::Exists(there.clone()));
    }
    for (path, (_, text, mode)) in files.iter().zip(&texts) {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(*mode);
        let mut file = options.open(path).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => MakeError::Exists(path.clone()),
            _ => MakeError::Write { path: path.clone(), source },
        })?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(written(path))?;
    }
    Ok(Made { files, expires })
}

fn named(name: &str, begins: OffsetDateTime, expires: OffsetDateTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = begins;
    params.not_after = expires;
    Ok(params)
}
