//! Why a connection ended, or never began, by whose doing.

use crate::crypto::ConfigError;
use crate::wire::TransportError;
use crate::wire::error::Code;
use std::net::SocketAddr;

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer broke the protocol, or TLS refused it; we closed and told it so.
    #[error("the peer misbehaved: {0}")]
    PeerMisbehaved(#[from] TransportError),
    /// The peer closed with a transport error: it says that we misbehaved, or it refused us.
    #[error("the peer closed the connection: {code} {reason:?}")]
    ClosedByPeer {
        /// The transport error code.
        code: Code,
        /// The peer's explanation, at most a few hundred bytes.
        reason: String,
    },
    /// The peer's application closed.
    #[error(
        "the peer's application closed the connection with code {code} {:?}",
        String::from_utf8_lossy(reason)
    )]
    ApplicationClosed {
        /// The application's code.
        code: u64,
        /// The application's explanation.
        reason: Vec<u8>,
    },
    /// Our application closed.
    #[error("closed by this side's application")]
    LocallyClosed,
    /// Nothing arrived for the idle timeout.
    #[error("timed out: nothing arrived for the idle timeout; is the peer still there?")]
    TimedOut,
    /// The handshake did not finish in time.
    #[error("the handshake did not finish in time; is a QUIC server at that address?")]
    HandshakeTimedOut,
    /// The peer lost its state and sent a stateless reset.
    #[error("reset by the peer: it has no memory of this connection")]
    Reset,
    /// The peer speaks no version that we speak.
    #[error("the peer offers no QUIC version that is spoken here")]
    VersionMismatch,
    /// The server rejected early data, and permits fewer streams now than were opened early.
    #[error(
        "the server rejected the early data and permits fewer streams now than were opened for it: \
         connect again without early data"
    )]
    EarlyDataRejected,
    /// The last of several paths was abandoned, with this code.
    #[error("the last path was abandoned: {0}")]
    NoPath(Code),
    /// The endpoint was shut down.
    #[error("the endpoint was shut down")]
    EndpointClosed,
}

/// Why a connection could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The TLS configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address family or port is impossible.
    #[error("cannot connect to {0}: port 0 and the unspecified address name no peer")]
    Address(SocketAddr),
    /// A connection without a connection ID has the same addresses.
    #[error(
        "a connection to {0} that has no connection ID uses this socket: a second one could not be \
         told from it; leave `zero_length_cid` off, connect from another socket or local address, \
         or wait until that connection is gone"
    )]
    SameAddresses(SocketAddr),
    /// The socket is connected to another peer.
    #[error(
        "cannot connect to {remote}: the socket is connected to {peer} and hears nobody else; use \
         a socket that is not connected"
    )]
    Connected {
        /// Where to.
        remote: SocketAddr,
        /// The socket's peer.
        peer: SocketAddr,
    },
    /// Other shards share the socket's address, and only connection IDs steer between them.
    #[error(
        "several shards share this address and find connections by their connection IDs: leave \
         `zero_length_cid` off, or give each shard a socket of its own (`Bind::Each`)"
    )]
    Steered,
}
