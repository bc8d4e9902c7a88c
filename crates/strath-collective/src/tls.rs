//! Who may be at the other end of a ring's connection, where workers have certificates.
//!
//! On the ring there is one role: a worker. Each of two ranks dials the other, so each is client of one TLS session and server of another,
//! with the certificate that it shows to the coordinator. Whichever it is, its peer asks the same of it: a certificate of the run's
//! authority, valid now, for the use of a worker (clientAuth, RFC 5280 4.2.1.12) and with a worker's name. A coordinator's certificate is
//! refused on either side, and as a worker's is not for serverAuth, no worker can serve as coordinator.
//!
//! This says that the peer is some worker of the authority. That it is the one that is due, of this generation, says the ticket
//! (`transport/handshake.rs`), which is proven before a session begins and once more within it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, UnbufferedServerConnection, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, KeyLog, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// What a worker shows to its peers, and whom it takes for one.
#[derive(Clone)]
pub struct RingTls {
    client: ClientConfig,
    server: ServerConfig,
    /// What every peer is called.
    name: ServerName<'static>,
}

impl fmt::Debug for RingTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RingTls {
    /// A worker's certificate with its key, the authority of its peers, and the name that is in every worker's certificate.
    ///
    /// # Errors
    /// rustls's, where these do not fit together.
    pub fn new(
        authority: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        name: &str,
    ) -> Result<Self, Error> {
        Self::with_provider(Arc::new(provider()), authority, chain, key, name)
    }

    fn with_provider(
        provider: Arc<CryptoProvider>,
        authority: Arc<RootCertStore>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        name: &str,
    ) -> Result<Self, Error> {
        let unusable = |what: &dyn fmt::Display| Error::General(what.to_string());
        let name = ServerName::try_from(name.to_owned()).map_err(|error| unusable(&error))?;
        let chains = WebPkiClientVerifier::builder_with_provider(authority, provider.clone());
        let peers = Arc::new(Peers { chains: chains.build().map_err(|error| unusable(&error))?, name: name.clone() });
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(peers.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        // A session is as long as its connection, and after its handshake words go one way only: no tickets to resume by.
        client.resumption = Resumption::disabled();
        // For the data plane, which makes its records itself.
        client.enable_secret_extraction = true;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(peers)
            .with_single_cert(chain, key)?;
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;
        Ok(Self { client, server, name })
    }

    /// The dialling end of a new session, and what it will have in common with the other end only.
    pub(crate) fn dial(&self) -> Result<(UnbufferedClientConnection, Arc<Exporter>), Error> {
        let exporter = Arc::<Exporter>::default();
        let mut config = self.client.clone();
        config.key_log = exporter.clone();
        Ok((UnbufferedClientConnection::new(Arc::new(config), self.name.clone())?, exporter))
    }

    /// The accepting end.
    pub(crate) fn accept(&self) -> Result<(UnbufferedServerConnection, Arc<Exporter>), Error> {
        let exporter = Arc::<Exporter>::default();
        let mut config = self.server.clone();
        config.key_log = exporter.clone();
        Ok((UnbufferedServerConnection::new(Arc::new(config))?, exporter))
    }
}

/// The ring crate's cryptography, with AES-128-GCM before AES-256-GCM: as safe for what is on its way for a moment, and a quarter faster.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// Takes note of a session's exporter secret (RFC 8446, 7.5). Both ends of the session have it, and nobody else: rustls tells it on this
/// way only, of connections whose buffers are their user's.
#[derive(Debug, Default)]
pub(crate) struct Exporter(Mutex<Option<[u8; 32]>>);

impl Exporter {
    /// Where the handshake has come so far.
    pub(crate) fn secret(&self) -> Option<[u8; 32]> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const EXPORTER: &str = "EXPORTER_SECRET";

impl KeyLog for Exporter {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == EXPORTER {
            // 32 bytes of SHA-256, 48 of SHA-384: the first 32 of these are as secret.
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = secret.first_chunk().copied();
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == EXPORTER
    }
}

/// Takes workers of the authority for peers, on either side of a session.
#[derive(Debug)]
struct Peers {
    /// Verifies chains of certificates for the use of a client.
    chains: Arc<dyn ClientCertVerifier>,
    /// What every worker is called.
    name: ServerName<'static>,
}

impl Peers {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.chains.verify_client_cert(end_entity, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, &self.name)
    }
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// What went wrong in a session, in one line.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => {
            format!("its certificate is not one of a worker of this authority that is valid now ({why})")
        }
        Error::AlertReceived(alert) => format!("it does not accept this worker's certificate ({alert:?})"),
        Error::NoCertificatesPresented => "it shows no certificate".into(),
        other => other.to_string(),
    }
}
