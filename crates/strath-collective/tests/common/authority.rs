//! Certificates made for a test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use strath_collective::RingTls;
use time::{Duration, OffsetDateTime};

/// What a certificate may be used for.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Use {
    Client,
    Server,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Valid {
    Now,
    Expired,
}

/// An authority.
pub(crate) struct Authority {
    roots: Arc<RootCertStore>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        // Told apart by name, so that another one's is unknown and not taken for a forged one of this.
        let name = format!("{:?}", &key.public_key_raw()[..16]);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { roots: Arc::new(roots), issuer: Issuer::new(params, key) }
    }

    /// A worker's certificate, as `strath certs` makes it.
    pub(crate) fn worker(&self) -> RingTls {
        self.certificate("worker.strath", Use::Client, Valid::Now)
    }

    /// A certificate of this authority; its holder takes workers of the authority for peers.
    pub(crate) fn certificate(&self, name: &str, purpose: Use, valid: Valid) -> RingTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![match purpose {
            Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(2);
        params.not_after = if valid == Valid::Expired { now - Duration::days(1) } else { now + Duration::days(1) };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        RingTls::new(self.roots.clone(), vec![certificate.der().clone()], key, "worker.strath").unwrap()
    }
}
