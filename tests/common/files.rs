//! Files that exist nowhere: name and size determine every byte, so that both ends of a test know
//! what a transfer has to yield.
//!
//! One request per bidirectional stream. `GET name\n` and the end of the stream is answered by the
//! file's bytes; `PUT name\n`, bytes and the end of the stream by the SHA-256 of what arrived.

use corelane::base::Rng;
use ring::digest::{SHA256, digest};

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"corelane-files";
/// The longest request line, its end included.
pub const REQUEST_MAX: usize = 256;
/// The largest file that a server of tests takes.
pub const FILE_MAX: usize = 64 << 20;
/// Answers a request that is none, or one for a file that does not exist, by a reset stream.
pub const NOT_FOUND: u32 = 0x404;

/// A SHA-256.
pub type Hash = [u8; 32];

/// A file of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without line ends.
    pub name: String,
    /// Its length in bytes.
    pub size: usize,
}

impl File {
    /// The file `name` of `size` bytes.
    pub fn new(name: impl Into<String>, size: usize) -> Self {
        let name = name.into();
        assert!(!name.contains('\n') && name.len() + 5 <= REQUEST_MAX && size <= FILE_MAX);
        Self { name, size }
    }

    /// Every byte of it.
    pub fn contents(&self) -> Vec<u8> {
        let seed = hash(format!("{}\n{}", self.name, self.size).as_bytes());
        let mut contents = vec![0; self.size];
        Rng::from_seed(seed).fill(&mut contents);
        contents
    }

    /// The SHA-256 of its contents.
    pub fn hash(&self) -> Hash {
        hash(&self.contents())
    }
}

/// The SHA-256 of `bytes`.
pub fn hash(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// What a stream asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The bytes of the file of that name.
    Get(&'a str),
    /// The hash of the bytes that follow.
    Put(&'a str, &'a [u8]),
}

impl<'a> Request<'a> {
    /// Reads everything that arrived on a finished stream.
    pub fn parse(stream: &'a [u8]) -> Option<Self> {
        let end = stream.iter().take(REQUEST_MAX).position(|&b| b == b'\n')?;
        let (line, body) = (
            std::str::from_utf8(&stream[..end]).ok()?,
            &stream[end + 1..],
        );
        match line.split_once(' ')? {
            ("GET", name) if body.is_empty() => Some(Self::Get(name)),
            ("PUT", name) => Some(Self::Put(name, body)),
            _ => None,
        }
    }

    /// What is answered, when `files` are what there is.
    pub fn answer(&self, files: &[File]) -> Option<Vec<u8>> {
        match self {
            Self::Get(name) => files.iter().find(|f| f.name == *name).map(File::contents),
            Self::Put(_, body) => Some(hash(body).to_vec()),
        }
    }

    /// The bytes of the request on its stream.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Get(name) => format!("GET {name}\n").into_bytes(),
            Self::Put(name, body) => [format!("PUT {name}\n").as_bytes(), body].concat(),
        }
    }
}
