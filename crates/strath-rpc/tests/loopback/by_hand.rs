//! The bytes of a session, for who would say other things in it than a worker.

/// An HTTP/2 frame of a stream (RFC 9113, 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    [&[high, middle, low, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A header that is in no table (RFC 7541, 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// What opens a session: the beginning of HTTP/2, settings and the headers of the call.
pub(crate) fn session() -> Vec<u8> {
    // POST over http, by their places in the table that everybody has.
    let headers = [
        vec![0x83, 0x86],
        header(":path", "/strath.v1.Strath/Session"),
        header(":authority", "here"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 4, 1, &headers.concat())].concat()
}

/// How HTTP/2 begins (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
