//! Fetching from a server on loopback that answers well, badly, slowly or not at all.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// What the server does with a connection once it has read the request.
enum Answer {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes, then nothing until the client goes.
    Hang(Vec<u8>),
    /// Sends these bytes, then a byte every 20 ms until the client goes.
    Trickle(Vec<u8>),
}

fn respond(stream: &mut TcpStream, answer: &Answer) {
    let (Answer::Bytes(bytes) | Answer::Hang(bytes) | Answer::Trickle(bytes)) = answer;
    // A client that refuses the answer by its header may be gone before the body is written.
    let _ = stream.write_all(bytes);
    match answer {
        Answer::Bytes(_) => {}
        Answer::Hang(_) => {
            let _ = stream.read(&mut [0; 1]);
        }
        Answer::Trickle(_) => {
            while stream.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Serves `answers` one after another, and returns the address and the paths that were asked for.
fn serve(answers: Vec<Answer>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            asked.push(request[0].split(' ').nth(1).unwrap().to_string());
            respond(&mut stream, &answer);
        }
        asked
    });
    (address, server)
}

fn http(status: &str, header: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{header}connection: close\r\n\r\n").as_bytes(), body].concat()
}

/// An answer that promises `length` bytes.
fn promising(length: usize, body: &[u8]) -> Vec<u8> {
    http("200 OK", &format!("content-length: {length}\r\n"), body)
}

fn ok(body: &[u8]) -> Vec<u8> {
    promising(body.len(), body)
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

/// Files of four thousand sevens and of five nines.
fn files() -> [PublicFile; 2] {
    let file = |name, bytes: &[u8]| {
        let sha256 = strath_core::Digest::of(bytes).to_string().leak();
        PublicFile { name, sha256, bytes: bytes.len() as u64 }
    };
    [file("sevens", &[7; 4000]), file("nines", &[9; 5])]
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fetch_from(folder: &Path, address: &str, patience: Patience) -> Result<Checked, DataError> {
    fetch_files(&files(), folder, address, patience, &mut |_, _, _| {})
}

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn files_are_checked_named_and_not_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("new/folder");
    let (sevens, nines) = (pack(&[7; 4000]), pack(&[9; 5]));
    let (address, server) = serve(vec![Answer::Bytes(ok(&sevens)), Answer::Bytes(http("200 OK", "", &nines))]);
    let mut heard = Vec::new();
    let mut progress = |file: &str, done: u64, all: Option<u64>| heard.push((file.to_string(), done, all));
    let checked = fetch_files(&files(), &into, &address, PATIENCE, &mut progress).unwrap();
    assert_eq!(checked, Checked { folder: into.clone(), fetched: 2, kept: 0 });
    assert_eq!(server.join().unwrap(), ["/sevens.gz", "/nines.gz"]);
    assert_eq!(names(&into), ["nines.gz", "sevens.gz"]);
    assert_eq!(fs::read(into.join("sevens.gz")).unwrap(), sevens);
    assert!(heard.contains(&("sevens.gz".into(), sevens.len() as u64, Some(sevens.len() as u64))), "{heard:?}");
    assert!(heard.contains(&("nines.gz".into(), nines.len() as u64, None)), "{heard:?}");
    assert_eq!(fetch_from(&into, &nowhere(), PATIENCE).unwrap().kept, 2);
    assert_eq!(verify_files(&files(), &into).unwrap().kept, 2);
}

#[test]
fn only_what_is_missing_or_bad_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sevens"), [7; 4000]).unwrap();
    fs::write(folder.path().join("nines.gz"), &pack(&[9; 5])[..9]).unwrap();
    assert!(verify_files(&files(), folder.path()).is_err());
    let (address, server) = serve(vec![Answer::Bytes(ok(&pack(&[9; 5])))]);
    let checked = fetch_from(folder.path(), &address, PATIENCE).unwrap();
    assert_eq!((checked.fetched, checked.kept), (1, 1));
    assert_eq!(server.join().unwrap(), ["/nines.gz"]);
    assert!(verify_files(&files(), folder.path()).is_ok());
}

#[test]
fn a_packed_file_declared_as_a_content_encoding_is_kept_packed() {
    let folder = tempfile::tempdir().unwrap();
    let answer = |body: &[u8]| {
        let header = format!(
            "content-type: application/octet-stream\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n",
            body.len()
        );
        Answer::Bytes(http("200 OK", &header, body))
    };
    let (address, server) = serve(vec![answer(&pack(&[7; 4000])), answer(&pack(&[9; 5]))]);
    assert_eq!(fetch_from(folder.path(), &address, PATIENCE).unwrap().fetched, 2);
    assert_eq!(fs::read(folder.path().join("nines.gz")).unwrap(), pack(&[9; 5]));
    server.join().unwrap();
}

#[test]
fn bad_answers_are_errors_that_name_the_address_and_leave_nothing() {
    let good = pack(&[7; 4000]);
    let endless = vec![0; 200_000];
    for (answer, reason) in [
        (ok(&pack(&[8; 4000])), "SHA-256"),
        (ok(&pack(&[7; 4001])), "SHA-256"),
        (ok(&pack(&[7; 3999])), "SHA-256"),
        (ok(b"<html>not gzip</html>"), "unpacked"),
        (ok(b""), "unpacked"),
        (promising(good.len(), &good[..20]), "broke after 20 bytes"),
        (http("200 OK", "", &good[..20]), "unpacked"),
        (promising(200_000, &endless), "found 200000 bytes, expected at most"),
        (http("200 OK", "", &endless), "found more bytes, expected at most"),
        (http("404 Not Found", "content-length: 0\r\n", b""), "404"),
        (http("500 Internal Server Error", "content-length: 4\r\n", b"oops"), "500"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "cannot fetch"),
        (Vec::new(), "cannot fetch"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (address, server) = serve(vec![Answer::Bytes(answer)]);
        let message = fetch_from(folder.path(), &address, PATIENCE).expect_err(reason).to_string();
        assert!(message.contains(reason), "{reason}: {message}");
        assert!(message.contains(&format!("{address}sevens.gz")) && message.contains("--from"), "{message}");
        assert!(!message.contains('\n'), "{message}");
        assert_eq!(names(folder.path()), Vec::<String>::new(), "{reason}");
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let address = nowhere();
    for from in [&address, "no address at all", "ftp://127.0.0.1/"] {
        let message = fetch_from(folder.path(), from, PATIENCE).expect_err(from).to_string();
        assert!(message.contains(from.trim_end_matches('/')) && message.contains("--from"), "{message}");
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_server_that_hangs_or_trickles_is_given_up() {
    let short = Patience { silence: Duration::from_millis(300), whole: Duration::from_secs(60) };
    let few = Patience { silence: Duration::from_secs(60), whole: Duration::from_millis(600) };
    for (answer, patience) in [
        (Answer::Hang(Vec::new()), short),
        (Answer::Hang(b"HTTP/1.1 200 OK\r\ncontent-le".to_vec()), short),
        (Answer::Hang(promising(4000, &pack(&[7; 4000])[..20])), short),
        (Answer::Trickle(promising(4000, &[])), few),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (address, server) = serve(vec![answer]);
        let begun = Instant::now();
        let message = fetch_from(folder.path(), &address, patience).expect_err("too slow").to_string();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(message.contains("timeout") && message.contains(&address), "{message}");
        assert_eq!(names(folder.path()), Vec::<String>::new());
        server.join().unwrap();
    }
}

#[test]
fn a_failed_download_leaves_the_file_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let stale = pack(&[1; 4000]);
    fs::write(folder.path().join("sevens.gz"), &stale).unwrap();
    let (address, server) = serve(vec![Answer::Bytes(http("404 Not Found", "", b""))]);
    assert!(fetch_from(folder.path(), &address, PATIENCE).is_err());
    assert_eq!(fs::read(folder.path().join("sevens.gz")).unwrap(), stale);
    server.join().unwrap();
}

#[test]
fn a_bad_plain_file_is_not_left_beside_a_good_download() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("sevens"), [7; 3999]).unwrap();
    let from = nowhere();
    for error in [fetch_from(folder.path(), &from, PATIENCE), verify_files(&files(), folder.path())] {
        let message = error.expect_err("bad").to_string();
        assert!(message.contains("sevens has SHA-256") && message.contains("remove it"), "{message}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let message = fetch_from(&file.path().join("inside"), &nowhere(), PATIENCE).expect_err("a file").to_string();
    assert!(message.contains("cannot make") && message.contains("inside"), "{message}");
}

#[test]
fn verification_names_the_missing_file_and_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let message = verify("fashion-mnist", folder.path()).expect_err("empty").to_string();
    assert!(message.contains("train-images-idx3-ubyte") && message.contains("strath data fetch"), "{message}");
}

#[test]
fn unknown_names_say_what_is_known_and_where_theirs_comes_from() {
    for (name, advice) in [
        ("imagenet", "safetensors"),
        ("cifar10", "binary version"),
        ("cifar100", "binary version"),
        ("mnist", "IDX files"),
        ("digits", "built in"),
    ] {
        let folder = Path::new("/");
        for error in [verify(name, folder), fetch(name, folder, None, &mut |_, _, _| {})] {
            let message = error.expect_err(name).to_string();
            assert!(message.contains("fashion-mnist") && message.contains(name), "{message}");
            assert!(message.contains(advice), "{message}");
        }
    }
}
