//! The client against a real TLS server: whom it trusts, and that it checks the name.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::{TLS12, TLS13},
};

use super::*;

/// Long enough never to pass here.
const LONG: Duration = Duration::from_secs(60);

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Answers one request over TLS with a certificate of its own making for `name`. Gives where, and the certificate.
fn serve_once(name: &str, version: &'static SupportedProtocolVersion) -> (SocketAddr, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(ring())
        .with_protocol_versions(&[version])
        .expect("ring has it")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("they belong together");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (tcp, _) = listener.accept().expect("a client");
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).expect("a connection"), tcp);
        let mut request = Vec::new();
        // A client that does not trust this server goes away: the test sees that on its own side.
        while !request.ends_with(b"{}") {
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            request.push(byte[0]);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure");
        let _ = stream.flush();
        // Until the client has gone.
        let _ = stream.read(&mut [0]);
    });
    (address, certificate)
}

fn exchange(client: &Client, address: SocketAddr) -> Result<Answer, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = format!("https://localhost:{}/hook?token=secret", address.port());
    let request = Request::post(url).body(Bytes::from_static(b"{}")).expect("a request");
    runtime.block_on(client.send(request, LONG))
}

/// A client that trusts this certificate and no other.
fn trusting(certificate: CertificateDer<'static>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let tls = rustls::ClientConfig::builder_with_provider(ring())
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::with_tls(ClientSettings::default(), tls)
}

#[test]
fn an_exchange_over_tls() {
    for version in [&TLS12, &TLS13] {
        let (address, certificate) = serve_once("localhost", version);
        let answer = exchange(&trusting(certificate), address).expect("an answer");
        assert_eq!(answer.body, "secure");
    }
}

#[test]
fn an_unknown_authority_and_a_wrong_name_are_refused_before_anything_is_sent() {
    let (address, _) = serve_once("localhost", &TLS13);
    let unknown = exchange(&Client::new(ClientSettings::default()), address).expect_err("nobody knows it");
    let (address, certificate) = serve_once("elsewhere.example.com", &TLS13);
    let wrong_name = exchange(&trusting(certificate), address).expect_err("it is for another name");
    for (error, expected) in [(unknown, "UnknownIssuer"), (wrong_name, "elsewhere.example.com")] {
        assert!(error.is_unsent(), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("connect: ") && text.contains(expected) && !text.contains("secret"), "{text}");
    }
}
