//! Encryption, and how far the server's certificate is checked: as libpq does for each `sslmode`.
//!
//! One difference: a certificate is matched by its subjectAltName only, never by its common name.

use std::io;
use std::sync::Arc;

use connector::{Error, ErrorKind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{SslMode, Tls, from_socket};

const OPERATION: &str = "connect with TLS";

pub struct Encryption {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Encryption {
    /// `host` is the name that the certificate is checked for; `server` is for messages.
    pub fn new(tls: &Tls, host: &str, server: &str) -> Result<Encryption> {
        let setup = || Error::new(ErrorKind::Setup, OPERATION).with("server", server);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| setup().source(error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::new(tls, server, provider.clone())?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| setup().source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trust))
            .with_no_client_auth();
        Ok(Encryption { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub async fn start(self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name, tcp).await
    }

    /// What [`Encryption::start`] failed with, as it is told. A certificate that does not fit stays so; anything else may
    /// be the network.
    pub fn failed(server: &str, error: io::Error) -> Error {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => Error::new(ErrorKind::Setup, OPERATION)
                .with("server", server)
                .source(error)
                .hint("name the certificate authority with sslrootcert=FILE, or check less with sslmode=require"),
            _ => from_socket(OPERATION, server, error),
        }
    }
}

/// Whom we believe to be the server.
#[derive(Debug)]
struct Trust {
    provider: Arc<CryptoProvider>,
    /// `None` believes everybody, as `require` without authorities does in libpq.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// The certificates of sslrootcert. One that is the server's own is trusted by being named, although as an
    /// authority's certificate it could not be a server's: most self-made ones are like that.
    named: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Trust {
    fn new(tls: &Tls, server: &str, provider: Arc<CryptoProvider>) -> Result<Trust> {
        let wants_authority = matches!(tls.mode, SslMode::VerifyCa | SslMode::VerifyFull);
        let by_file = tls.authorities.as_deref().filter(|_| tls.mode != SslMode::Prefer);
        let named = match by_file {
            Some(path) if path.as_os_str() == "system" => Vec::new(),
            Some(path) => read_certificates(server, path)?,
            None => Vec::new(),
        };
        let mut roots = RootCertStore::empty();
        if !named.is_empty() {
            for certificate in &named {
                roots.add(certificate.clone()).map_err(|error| no_authorities(server).source(error))?;
            }
        } else if wants_authority || by_file.is_some() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let authorities = if wants_authority || by_file.is_some() {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(builder.build().map_err(|error| no_authorities(server).source(error))?)
        } else {
            None
        };
        Ok(Trust { provider, authorities, named, checks_name: tls.mode == SslMode::VerifyFull })
    }
}

fn read_certificates(server: &str, path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = || no_authorities(server).with("sslrootcert", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<std::result::Result<Vec<_>, _>>())
        .map_err(|error| failed().source(error))?;
    if certificates.is_empty() {
        return Err(failed().with("because", "the file holds no certificate"));
    }
    Ok(certificates)
}

fn no_authorities(server: &str) -> Error {
    Error::new(ErrorKind::Setup, OPERATION)
        .with("server", server)
        .hint("sslrootcert must name a readable PEM file with the authority's certificate")
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        if self.named.iter().any(|certificate| certificate.as_ref() == end_entity.as_ref()) {
            if self.checks_name {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match authorities.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            // The name is checked last, so the chain was good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
