//! Who is at the other end: on a control connection with certificates both sides show one of the run's own authority.
//!
//! A certificate is for one role, by its extended key usage (RFC 5280, 4.2.1.12): a coordinator's serves and cannot call, a worker's calls
//! and cannot serve. A coordinator is recognised by the name [`COORDINATOR`], whatever address it is dialled at, so a set made
//! on one machine serves anywhere. TLS 1.3 only.
//!
//! Workers show the same certificate to each other on the ring, where all of them are of one role: `strath-collective`'s `tls` says how.

mod authority;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::either::Either;

use crate::error::innermost;

pub use authority::{Made, MakeError, make};

/// A control connection: in clear, or with both sides' certificates checked.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The name in every coordinator's certificate.
pub const COORDINATOR: &str = "coordinator.strath";
/// The name in every worker's certificate.
pub const WORKER: &str = "worker.strath";
/// The authority's certificate, in a folder of certificates.
const AUTHORITY_FILE: &str = "ca.pem";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; --certs names a folder with ca.pem and this role's .pem and .key, as strath certs DIR makes it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no usable {expected}: {found}; make a set with strath certs DIR", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong with it.
        found: String,
    },
}

/// A coordinator's certificate and key, and the authority whose workers it admits.
#[derive(Debug, Clone)]
pub struct ServerTls(pub(crate) Arc<ServerConfig>);

/// A worker's certificate and key, and the authority whose coordinator it obeys.
#[derive(Debug, Clone)]
pub struct ClientTls(pub(crate) Arc<ClientConfig>, Arc<Credentials>);

/// What a worker shows, to its coordinator and to its peers.
#[derive(Debug)]
pub struct Credentials {
    /// Whose certificates are good.
    pub authority: Arc<RootCertStore>,
    /// The worker's certificate, and those between it and the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// The name that is in every worker's certificate.
    pub name: &'static str,
}

impl ServerTls {
    /// Reads `ca.pem`, `coordinator.pem` and `coordinator.key`.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(folder: &Path) -> Result<Self, CertificateError> {
        let Set { authority, chain, key, path } = Set::read(folder, "coordinator")?;
        let unusable = |expected, found: &dyn std::fmt::Display| CertificateError::Malformed {
            path: path.clone(),
            expected,
            found: found.to_string(),
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(authority, provider())
            .build()
            .map_err(|error| unusable("certificate of an authority", &error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable("certificate", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| unusable("certificate with its key", &error))?;
        Ok(Self(Arc::new(config)))
    }
}

impl ClientTls {
    /// Reads `ca.pem`, `worker.pem` and `worker.key`.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(folder: &Path) -> Result<Self, CertificateError> {
        let Set { authority, chain, key, path } = Set::read(folder, "worker")?;
        let unusable = |found: &dyn std::fmt::Display| CertificateError::Malformed {
            path: path.clone(),
            expected: "certificate with its key",
            found: found.to_string(),
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(authority.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| unusable(&error))?;
        Ok(Self(Arc::new(config), Arc::new(Credentials { authority, chain, key, name: WORKER })))
    }

    /// What the worker shows to its peers on the ring.
    pub fn credentials(&self) -> &Credentials {
        &self.1
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What one role needs of a folder.
pub(crate) struct Set {
    authority: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The certificate's file, for messages.
    path: PathBuf,
}

impl Set {
    fn read(folder: &Path, role: &str) -> Result<Self, CertificateError> {
        let [authority, chain, key] = [AUTHORITY_FILE.into(), format!("{role}.pem"), format!("{role}.key")];
        let [authority, chain, key] = [authority, chain, key].map(|name: String| folder.join(name));
        let parts = [read(&authority)?, read(&chain)?, read(&key)?];
        let parts = Parts { authority: (&authority, &parts[0]), chain: (&chain, &parts[1]), key: (&key, &parts[2]) };
        parts.parse()
    }
}

/// The files of a set, each with what it holds.
pub(crate) struct Parts<'a> {
    pub(crate) authority: (&'a Path, &'a [u8]),
    pub(crate) chain: (&'a Path, &'a [u8]),
    pub(crate) key: (&'a Path, &'a [u8]),
}

impl Parts<'_> {
    pub(crate) fn parse(&self) -> Result<Set, CertificateError> {
        let mut authority = RootCertStore::empty();
        for certificate in certificates(self.authority)? {
            authority.add(certificate).map_err(|error| CertificateError::Malformed {
                path: self.authority.0.into(),
                expected: "certificate of an authority",
                found: error.to_string(),
            })?;
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.1).map_err(|error| CertificateError::Malformed {
            path: self.key.0.into(),
            expected: "private key",
            found: error.to_string(),
        })?;
        let chain = certificates(self.chain)?;
        Ok(Set { authority: Arc::new(authority), chain, key, path: self.chain.0.into() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read { path: path.into(), source })
}

/// The certificates of a file, of which there is at least one.
fn certificates((path, bytes): (&Path, &[u8])) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let malformed = |found: String| CertificateError::Malformed { path: path.into(), expected: "certificate", found };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("there is none in it".into())) } else { Ok(found) }
}

/// The error of TLS itself behind another, if one is: dialling again does not cure it.
pub(crate) fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut at = Some(error);
    while let Some(behind) = at {
        if let Some(tls) = behind.downcast_ref::<rustls::Error>() {
            return Some(explain(tls));
        }
        // An IO error hides what it was made of from `source`.
        let io = behind.downcast_ref::<std::io::Error>();
        if let Some(tls) = io.and_then(|io| io.get_ref()).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(explain(tls));
        }
        at = behind.source();
    }
    // HTTP/2 keeps an error's words only.
    innermost(error).strip_prefix(ALERT).map(not_accepted)
}

/// What rustls says of an alert before its name.
const ALERT: &str = "received fatal alert: ";

fn not_accepted(alert: &str) -> String {
    format!("it does not accept this worker's certificate ({alert})")
}

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => {
            format!("its certificate is not one of a coordinator of this authority ({why})")
        }
        rustls::Error::AlertReceived(alert) => not_accepted(&format!("{alert:?}")),
        rustls::Error::InvalidMessage(_) => "it does not speak TLS: start it with --certs, or this one without".into(),
        other => other.to_string(),
    }
}
