//! Certificates: who is heard, who is not, and what each side says.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use strath_rpc::tls::make;
use strath_rpc::{CertificateError, ClientTls, RpcError, ServerTls, Session, SessionHappening, status};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::harness::{Coordinator, PATIENCE, SOON, finished, received, register, serving, state};

/// A folder with a set made some days ago.
fn set(days_ago: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    make(&folder.path().join("set"), 30, OffsetDateTime::now_utc() - time::Duration::days(days_ago)).unwrap();
    folder
}

fn files(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("set")
}

fn client(folder: &tempfile::TempDir) -> ClientTls {
    ClientTls::read(&files(folder)).unwrap()
}

fn secured(folder: &tempfile::TempDir) -> Coordinator {
    serving(Some(ServerTls::read(&files(folder)).unwrap()), None)
}

/// A folder beside a set, with files of this and other sets under other names.
fn mixed(beside: &tempfile::TempDir, files_as: [(&tempfile::TempDir, &str, &str); 3]) -> PathBuf {
    let path = beside.path().join("mixed");
    std::fs::create_dir_all(&path).unwrap();
    for (from, file, name) in files_as {
        std::fs::copy(files(from).join(file), path.join(name)).unwrap();
    }
    path
}

/// What a worker with these certificates is told by a coordinator, within moments; the coordinator hears of no session.
async fn refused(mut coordinator: Coordinator, tls: Option<&ClientTls>) -> RpcError {
    let since = Instant::now();
    let address = coordinator.address.to_string();
    let error = Session::connect(&address, Duration::from_millis(700), tls).await.unwrap_err();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert!(timeout(Duration::from_millis(50), coordinator.events.recv()).await.is_err(), "a session began");
    error
}

fn says(error: &RpcError, words: &str) {
    assert!(matches!(error, RpcError::Untrusted { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(words) && said.contains("strath certs DIR") && said.contains("127.0.0.1:"), "{said}");
}

#[tokio::test]
async fn with_certificates_of_one_authority_both_sides_hear_each_other() {
    let folder = set(0);
    let mut coordinator = secured(&folder);
    let tls = client(&folder);
    let address = coordinator.address.to_string();
    let mut session = Session::connect(&address, PATIENCE, Some(&tls)).await.unwrap();
    let event = coordinator.event().await;
    assert_eq!(event.what, SessionHappening::Connected(session.local_address()));
    session.sender().send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register());
    coordinator.place(&mut session, event.connection).await;
    // Many records in both directions.
    let sent = state(3_000_000, 1_000_000);
    coordinator.server.send(event.connection, strath_protocol::message::CoordinatorMessage::State(sent.clone()));
    assert_eq!(received(&mut session).await, strath_protocol::message::CoordinatorMessage::State(sent));
    session.sender().send(finished()).await.unwrap();
    assert_eq!(coordinator.message().await, finished());
    let error = status(&address, PATIENCE, Some(&tls)).await.unwrap_err().to_string();
    assert!(error.contains("nothing to show yet"), "{error}");
}

#[tokio::test]
async fn another_authoritys_worker_is_refused_and_refuses() {
    let (ours, theirs) = (set(0), set(0));
    says(&refused(secured(&ours), Some(&client(&theirs))).await, "not one of a coordinator of this authority");
    // A worker that would obey anyone still has to show something: theirs, beside our authority.
    let files =
        [(&ours, "ca.pem", "ca.pem"), (&theirs, "worker.pem", "worker.pem"), (&theirs, "worker.key", "worker.key")];
    let tls = ClientTls::read(&mixed(&ours, files)).unwrap();
    says(&refused(secured(&ours), Some(&tls)).await, "does not accept this worker's certificate");
}

#[tokio::test]
async fn expired_certificates_are_refused_on_either_side() {
    let (expired, fresh) = (set(40), set(0));
    says(&refused(secured(&expired), Some(&client(&expired))).await, "expired");
    let files =
        [(&fresh, "ca.pem", "ca.pem"), (&expired, "worker.pem", "worker.pem"), (&expired, "worker.key", "worker.key")];
    let tls = ClientTls::read(&mixed(&fresh, files)).unwrap();
    says(&refused(secured(&fresh), Some(&tls)).await, "does not accept this worker's certificate");
}

#[tokio::test]
async fn a_workers_certificate_cannot_serve_and_a_coordinators_cannot_call() {
    let folder = set(0);
    let own = (&folder, "ca.pem", "ca.pem");
    let files = [own, (&folder, "worker.pem", "coordinator.pem"), (&folder, "worker.key", "coordinator.key")];
    let posing = ServerTls::read(&mixed(&folder, files)).unwrap();
    says(&refused(serving(Some(posing), None), Some(&client(&folder))).await, "not one of a coordinator");
    let files = [own, (&folder, "coordinator.pem", "worker.pem"), (&folder, "coordinator.key", "worker.key")];
    let posing = ClientTls::read(&mixed(&folder, files)).unwrap();
    says(&refused(secured(&folder), Some(&posing)).await, "does not accept this worker's certificate");
}

#[tokio::test]
async fn one_side_in_clear_is_not_heard() {
    let folder = set(0);
    let error = refused(secured(&folder), None).await;
    assert!(matches!(error, RpcError::Absent { .. }), "{error:?}");
    let clear = serving(None, None);
    says(&refused(clear, Some(&client(&folder))).await, "does not speak TLS");
}

#[tokio::test]
async fn a_stranger_that_stays_silent_keeps_nobody_waiting() {
    let folder = set(0);
    let mut coordinator = secured(&folder);
    let address = coordinator.address;
    let mut strangers: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    strangers[0].write_all(b"\x16\x03\x01\x40").unwrap();
    strangers[1].write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let since = Instant::now();
    Session::connect(&address.to_string(), PATIENCE, Some(&client(&folder))).await.unwrap();
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert!(matches!(coordinator.event().await.what, SessionHappening::Connected(_)));
    // Whoever speaks something else is told so at once, or hears nothing more.
    let mut answer = Vec::new();
    strangers[1].set_read_timeout(Some(SOON)).unwrap();
    let ended = tokio::task::spawn_blocking(move || strangers.swap_remove(1).read_to_end(&mut answer).is_ok());
    assert!(ended.await.unwrap());
}

#[test]
fn a_set_is_made_once_and_its_keys_are_the_users_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = set(0);
    let names = ["ca.pem", "coordinator.pem", "worker.pem", "ca.key", "coordinator.key", "worker.key"];
    for name in names {
        let mode = std::fs::metadata(files(&folder).join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name.contains(".key") { 0o600 } else { 0o644 }, "{name}");
    }
    let before = std::fs::read(files(&folder).join("ca.pem")).unwrap();
    let error = make(&files(&folder), 1, OffsetDateTime::now_utc()).unwrap_err().to_string();
    assert!(error.contains("is there already"), "{error}");
    assert_eq!(std::fs::read(files(&folder).join("ca.pem")).unwrap(), before);
}

#[test]
fn what_is_no_certificate_is_named() {
    let folder = set(0);
    let read = |folder: &Path| ClientTls::read(folder).unwrap_err();
    let missing = read(Path::new("/nowhere/at/all"));
    assert!(matches!(missing, CertificateError::Read { .. }) && missing.to_string().contains("/nowhere/at/all/"));
    for (file, text, expected) in [
        ("worker.pem", "", "certificate"),
        ("worker.key", "no key", "private key"),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate of an authority"),
    ] {
        let path = files(&folder).join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, text).unwrap();
        let error = read(&files(&folder)).to_string();
        assert!(error.contains(file) && error.contains(&format!("holds no usable {expected}")), "{error}");
        std::fs::write(&path, whole).unwrap();
    }
    // A key that is another certificate's.
    std::fs::copy(files(&folder).join("coordinator.key"), files(&folder).join("worker.key")).unwrap();
    let error = read(&files(&folder)).to_string();
    assert!(error.contains("certificate with its key"), "{error}");
}
