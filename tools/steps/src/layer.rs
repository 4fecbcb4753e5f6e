//! The layers that costs are put down to, and the rule by which a stack of inlined frames belongs
//! to one of them.
//!
//! The innermost frame in a file of the engine decides, so that what it inlined of `core` or of a
//! small crate is its own. Packet protection decides before that: it is somebody else's code.

use std::fmt;

/// Where time or instructions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The operating system.
    Kernel,
    /// Sealing and opening payloads: ring or AWS-LC, and the way to them through rustls.
    Aead,
    /// Masks for headers.
    HeaderProtection,
    /// The rest of cryptography: TLS, signatures, key exchange, hashes.
    Tls,
    /// Functions of the C library that copy, fill or compare.
    Memcpy,
    /// Getting and returning heap memory.
    Alloc,
    /// `src/wire`.
    Wire,
    /// `src/recovery`.
    Recovery,
    /// `src/stream`.
    Stream,
    /// `src/path`.
    Path,
    /// `src/crypto`: own code around packet protection.
    Crypto,
    /// `src/conn`.
    Conn,
    /// `src/base`.
    Base,
    /// `src/shard`.
    Shard,
    /// `src/io`, with `src/mem` and `src/sys`.
    Io,
    /// `src/api`.
    Api,
    /// `src/cli`, or whatever else plays the application.
    App,
    /// Nothing of the above.
    Other,
}

impl Layer {
    /// All of them, as tables list them.
    pub const ALL: [Self; 18] = [
        Self::Kernel,
        Self::Aead,
        Self::HeaderProtection,
        Self::Tls,
        Self::Memcpy,
        Self::Alloc,
        Self::Wire,
        Self::Recovery,
        Self::Stream,
        Self::Path,
        Self::Crypto,
        Self::Conn,
        Self::Base,
        Self::Shard,
        Self::Io,
        Self::Api,
        Self::App,
        Self::Other,
    ];

    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Aead => "aead",
            Self::HeaderProtection => "header protection",
            Self::Tls => "tls",
            Self::Memcpy => "memcpy",
            Self::Alloc => "alloc",
            Self::Wire => "wire",
            Self::Recovery => "recovery",
            Self::Stream => "stream",
            Self::Path => "path",
            Self::Crypto => "crypto",
            Self::Conn => "conn",
            Self::Base => "base",
            Self::Shard => "shard",
            Self::Io => "io",
            Self::Api => "api",
            Self::App => "app",
            Self::Other => "other",
        }
    }

    /// The layer with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }

    /// Whether it is a layer of the engine: the same instructions on every machine.
    pub const fn is_engine(self) -> bool {
        matches!(
            self,
            Self::Wire
                | Self::Recovery
                | Self::Stream
                | Self::Path
                | Self::Crypto
                | Self::Conn
                | Self::Base
                | Self::Shard
                | Self::Io
                | Self::Api
        )
    }

    /// The layer of a file of the engine, or of a program that embeds it.
    pub fn of_file(file: &str) -> Option<Self> {
        if FOREIGN.iter().any(|part| file.contains(part)) {
            return None;
        }
        if EMBEDDERS.iter().any(|part| file.contains(part)) {
            return Some(Self::App);
        }
        let (_, rest) = file.rsplit_once("/src/")?;
        match rest.split(['/', '.']).next()? {
            "mem" | "sys" | "rdma" => Some(Self::Io),
            "cli" | "main" => Some(Self::App),
            name => Self::named(name).filter(|layer| layer.is_engine()),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Sources that are not this repository's.
const FOREIGN: [&str; 4] = ["/registry/src/", "/git/checkouts/", "/rustc/", "/library/"];
/// Sources of this repository that use the engine.
const EMBEDDERS: [&str; 5] = ["/tools/", "/perf/", "/benches/", "/tests/", "/examples/"];

/// One function in the stack of those that were inlined into each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its name, demangled.
    pub function: String,
    /// Path of the source.
    pub file: String,
    /// Line in it, from 1; 0 when not known.
    pub line: u32,
}

/// Where an instruction stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The layer it is put down to.
    pub layer: Layer,
    /// The function that decided, demangled and shortened.
    pub function: String,
    /// `conn/fill.rs:12`; empty when there is none.
    pub line: String,
}

/// What an address says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// It belongs here.
    Here(Place),
    /// It belongs to whoever called it: code of `core` and small crates, standing alone.
    Callers(String),
    /// A routine of cryptography in assembly or C, which layers share.
    Cipher(String),
}

/// Judges a stack of frames, the innermost first.
pub fn judge(frames: &[Frame]) -> Spot {
    for frame in frames {
        if is_cipher(&frame.function) {
            return judge_symbol(&frame.function);
        }
        if protection(frame) == Some(Layer::Tls) {
            return Spot::Cipher(short(&frame.function));
        }
        if let Some(layer) = protection(frame).or_else(|| Layer::of_file(&frame.file)) {
            return Spot::Here(Place {
                layer,
                function: short(&frame.function),
                line: line(frame),
            });
        }
    }
    let Some(outermost) = frames.last() else {
        return Spot::Callers("?".into());
    };
    match judge_symbol(&outermost.function) {
        // Helpers without a name that says so; inlined ones are their function's.
        Spot::Callers(name) if outermost.file.contains("/aws-lc/") => Spot::Cipher(name),
        spot => spot,
    }
}

/// Judges a function by its name alone.
pub fn judge_symbol(name: &str) -> Spot {
    let named = Frame {
        function: name.into(),
        ..Frame::default()
    };
    if let Some(layer) = protection(&named) {
        return Spot::Here(Place {
            layer,
            function: short(name),
            line: String::new(),
        });
    }
    if is_cipher(name) {
        let aead = ["aead", "AEAD", "gcm", "ghash", "poly1305"];
        return match aead.iter().any(|p| name.contains(p)) {
            true => Spot::Here(Place {
                layer: Layer::Aead,
                function: name.into(),
                line: String::new(),
            }),
            false => Spot::Cipher(name.into()),
        };
    }
    match c_function(name) {
        Some(layer) => Spot::Here(Place {
            layer,
            function: name.into(),
            line: String::new(),
        }),
        None => Spot::Callers(short(name)),
    }
}

/// Code of the libraries for cryptography.
fn protection(frame: &Frame) -> Option<Layer> {
    let name = frame.function.trim_start_matches(['<', '&']);
    let of = |crates: &[&str]| crates.iter().any(|c| is_of(frame, name, c));
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    // Whoever has the same code may stand under these names: the linker keeps one of many.
    if has(&["drop_in_place", "Drop>::drop", "::polyfill::", "Zeroize>"]) {
        return None;
    }
    if of(&["aes", "cipher", "inout"]) {
        return Some(Layer::HeaderProtection);
    }
    if !of(&["ring", "rustls", "aws_lc_rs", "aws-lc-rs", "aws-lc-sys"]) {
        return None;
    }
    let header = [
        "HeaderProtection",
        "HeaderKey",
        "new_mask",
        "aead::quic",
        "xor_in_place",
    ];
    if has(&header) {
        return Some(Layer::HeaderProtection);
    }
    let payload = frame.file.contains("/aead") || has(&["aead", "PacketKey", "cipher::Nonce"]);
    Some(if payload { Layer::Aead } else { Layer::Tls })
}

/// Whether the function or its file is of this crate.
fn is_of(frame: &Frame, name: &str, of: &str) -> bool {
    let named = name
        .strip_prefix(of)
        .is_some_and(|rest| rest.starts_with("::"));
    let directory = format!("/{of}-");
    // `/ring-0.17.14/`, and not `/aes-gcm.S`.
    let mut after = frame.file.split(&directory).skip(1);
    named || after.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Assembly and C of the libraries for cryptography. What a library exports begins with its name;
/// the functions inside it do not.
fn is_cipher(name: &str) -> bool {
    let parts = [
        "ring_core_",
        "aws_lc_",
        "aead_",
        "aes_",
        "aesni_",
        "gcm_",
        "poly1305_",
        "vpaes_",
        // Jitterentropy, from which AWS-LC seeds its generator.
        "jent_",
        "tree_jitter_",
    ];
    parts.iter().any(|part| name.starts_with(part)) || name.contains("chacha20_poly1305")
}

/// The layer of a [`Spot::Cipher`] where nobody tells who called it: payloads use the most of a
/// block cipher and of comparing (tags), and the rest of cryptography is of handshakes.
pub fn alone(name: &str) -> Layer {
    let payload = ["aes", "AES", "ctr32", "chacha", "CRYPTO_memcmp"];
    match payload.iter().any(|part| name.contains(part)) && is_cipher(name) {
        true => Layer::Aead,
        false => Layer::Tls,
    }
}

/// Functions of the C library, by the names that its parts have inside.
fn c_function(name: &str) -> Option<Layer> {
    let name = name.trim_start_matches('_');
    let begins = |names: &[&str]| names.iter().any(|n| name.starts_with(n));
    if begins(&["memcpy", "memmove", "memset", "memcmp", "bcmp", "memchr"]) {
        return Some(Layer::Memcpy);
    }
    let alloc = [
        "malloc",
        "free",
        "calloc",
        "realloc",
        "int_malloc",
        "int_free",
        "int_realloc",
        "mi_",
        "tcache",
    ];
    begins(&alloc).then_some(Layer::Alloc)
}

/// `corelane::conn::fill::write_ack` without the crate, hashes and generic arguments.
fn short(name: &str) -> String {
    let name = match name.rfind("::h") {
        Some(at) if name.len() - at == 19 => &name[..at],
        _ => name,
    };
    let mut out = String::new();
    let (mut depth, mut previous) = (0_u32, ' ');
    let bare = name.starts_with('<');
    for c in name.chars() {
        match c {
            // The angle brackets of `<T as Trait>::f` stay, those of `f::<T>` go.
            '<' if bare && out.is_empty() => out.push(c),
            '<' => depth += 1,
            '>' if previous == '-' => {}
            '>' if depth > 0 => depth -= 1,
            '>' => out.push(c),
            c if depth == 0 => out.push(c),
            _ => {}
        }
        previous = c;
    }
    out.replace("corelane::", "")
        .replace("::::", "::")
        .trim_end_matches("::")
        .into()
}

fn line(frame: &Frame) -> String {
    let file = &frame.file;
    let file = file
        .rsplit_once("/src/")
        .map_or(file.as_str(), |(_, rest)| rest);
    match frame.line {
        0 => file.into(),
        line => format!("{file}:{line}"),
    }
}

#[cfg(test)]
mod tests;
