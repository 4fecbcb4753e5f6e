//! The cases as endpoints see them: what `TESTCASE` may say.

/// What an endpoint is told to do. Many cases of the runner differ only in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Fetch on one connection.
    Transfer,
    /// Offer TLS_CHACHA20_POLY1305_SHA256 alone.
    ChaCha20,
    /// A connection for each file.
    MultiConnect,
    /// The server sends Retry.
    Retry,
    /// The first file, then the others on a resumed connection.
    Resumption,
    /// The same, with the requests in 0-RTT packets.
    ZeroRtt,
    /// The client updates keys early in the transfer.
    KeyUpdate,
    /// Both sides mark packets ECT.
    Ecn,
    /// Both sides offer version 2 and move to it.
    V2,
    /// The server offers a preferred address, and the client moves to it.
    ConnectionMigration,
    /// Those who know of several paths of a connection (RFC 10069) offer them; nobody opens one.
    Multipath,
}

impl Case {
    /// The case that `TESTCASE` names.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "handshake" | "transfer" | "longrtt" | "multiplexing" | "blackhole"
            | "amplificationlimit" | "transferloss" | "transfercorruption" | "ipv6"
            | "rebind-port" | "rebind-addr" | "goodput" | "crosstraffic" => Self::Transfer,
            "chacha20" => Self::ChaCha20,
            "multiconnect" | "handshakeloss" | "handshakecorruption" => Self::MultiConnect,
            "retry" => Self::Retry,
            "resumption" => Self::Resumption,
            "zerortt" => Self::ZeroRtt,
            "keyupdate" => Self::KeyUpdate,
            "ecn" => Self::Ecn,
            "v2" => Self::V2,
            "connectionmigration" => Self::ConnectionMigration,
            "multipath" => Self::Multipath,
            _ => return None,
        })
    }
}
