//! Counters over HTTP, for Prometheus: one thread, one request at a time, bounded in bytes and time.
//!
//! A server of a few lines, because what there is to serve is one text: the exporters on offer
//! bring a runtime and an HTTP stack, the small servers have no timeouts.

use super::Failure;
use corelane::shard::metrics::{MetricsReader, prometheus};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of a request, at most.
const REQUEST: usize = 4096;
/// Pieces that it may come in.
const PIECES: usize = 16;
/// How long to wait for a piece, and for a reader.
const PATIENCE: Duration = Duration::from_secs(1);

type Engines = Arc<Mutex<Vec<MetricsReader>>>;

/// The thread that answers.
pub struct Exporter {
    addr: SocketAddr,
    engines: Engines,
}

impl Exporter {
    /// Listens at `addr`.
    pub fn start(addr: SocketAddr) -> Result<Self, Failure> {
        let failed = |e: io::Error| {
            let hint = match e.kind() {
                ErrorKind::AddrInUse => "; choose another port with --metrics",
                _ => "",
            };
            Failure::Failed(format!("cannot serve metrics at {addr}: {e}{hint}"))
        };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let engines = Engines::default();
        let shown = engines.clone();
        thread::Builder::new()
            .name("metrics".into())
            .spawn(move || serve(&listener, &shown))
            .map_err(failed)?;
        Ok(Self { addr, engines })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Shows the counters of these engines.
    pub fn show(&self, engines: Vec<MetricsReader>) {
        *self.engines.lock().unwrap_or_else(PoisonError::into_inner) = engines;
    }
}

/// Answers until the process ends.
fn serve(listener: &TcpListener, engines: &Engines) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                if let Err(error) = answer(stream, engines) {
                    tracing::debug!(%error, %peer, "a scrape came to nothing");
                }
            }
            Err(error) => {
                // Out of descriptors, say: another moment may have some.
                tracing::debug!(%error, "no scrape could be accepted");
                thread::sleep(PATIENCE);
            }
        }
    }
}

fn answer(mut stream: TcpStream, engines: &Engines) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = read_request(&mut stream)?;
    let (status, body) = respond(&request, engines);
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

/// Reads up to the empty line, or as far as the bounds permit.
fn read_request(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut request = vec![0; REQUEST];
    let mut len = 0;
    for _ in 0..PIECES {
        let n = stream.read(&mut request[len..])?;
        len += n;
        let is_whole = request[..len].windows(4).any(|w| w == b"\r\n\r\n");
        if n == 0 || is_whole {
            break;
        }
    }
    request.truncate(len);
    Ok(request)
}

fn respond(request: &[u8], engines: &Engines) -> (&'static str, String) {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (method, path) = (words.next(), words.next().unwrap_or_default());
    if !request.windows(4).any(|w| w == b"\r\n\r\n") {
        return ("400 Bad Request", "no HTTP request\n".into());
    }
    if method != Some(b"GET") {
        return ("405 Method Not Allowed", "only GET\n".into());
    }
    if path.split(|b| *b == b'?').next() != Some(b"/metrics") {
        return ("404 Not Found", "metrics are at /metrics\n".into());
    }
    let engines = engines.lock().unwrap_or_else(PoisonError::into_inner);
    let read: Vec<_> = engines.iter().map(MetricsReader::read).collect();
    drop(engines);
    ("200 OK", prometheus(&read))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &[u8]) -> &'static str {
        respond(request, &Engines::default()).0
    }

    #[test]
    fn only_what_there_is_is_served() {
        assert_eq!(
            status(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            "200 OK"
        );
        assert_eq!(status(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), "200 OK");
        assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), "404 Not Found");
        assert_eq!(
            status(b"POST /metrics HTTP/1.0\r\n\r\n"),
            "405 Method Not Allowed"
        );
        assert_eq!(status(b"\x16\x03\x01"), "400 Bad Request");
        assert_eq!(status(b""), "400 Bad Request");
    }

    #[test]
    fn a_request_is_bounded() {
        let endless = read_request(&mut io::repeat(b'x')).unwrap();
        assert_eq!(endless.len(), REQUEST);
        assert_eq!(status(&endless), "400 Bad Request");
        struct Drip;
        impl Read for Drip {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                buf[0] = b'y';
                Ok(1)
            }
        }
        assert_eq!(read_request(&mut Drip).unwrap().len(), PIECES);
    }

    #[test]
    fn a_scrape_comes_over_the_network() {
        let exporter = Exporter::start("127.0.0.1:0".parse().unwrap()).unwrap();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(exporter.addr()).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.0 200 OK\r\n"));
            assert!(text.contains("# TYPE corelane_connections_open gauge"));
        }
        let taken = Exporter::start(exporter.addr()).err().unwrap().to_string();
        assert!(taken.contains("--metrics"), "{taken}");
    }
}
