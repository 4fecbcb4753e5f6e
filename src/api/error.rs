//! What the async face can refuse, by whose doing and with what to do next.

use crate::conn::endpoint;
use crate::conn::{
    ClosePathError, ConnectionError, MigrateError, MigrationFailure, OpenPathError, PinError,
};
use crate::crypto::{ConfigError, ExportError};
use crate::io::IoError;
use crate::stream::DatagramError;
use crate::wire::Code;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address names no peer.
    #[error("cannot connect to {0}: port 0 and the unspecified address name no peer")]
    Address(SocketAddr),
    /// The endpoint's sockets cannot reach addresses of this family.
    #[error(
        "cannot reach {0}: this endpoint is bound to IPv4 only; bind it to [::] or to an IPv6 \
         address"
    )]
    Family(SocketAddr),
    /// The endpoint cannot keep the connection apart from others.
    #[error(transparent)]
    Endpoint(endpoint::ConnectError),
    /// What the peer was to prove to be is neither a DNS name nor an IP address.
    #[error(
        "{0:?} is neither a DNS name nor an IP address: give the name in the peer's certificate"
    )]
    ServerName(String),
    /// The endpoint has no TLS configuration for connecting.
    #[error("no TLS configuration for connecting: give the endpoint one with `client`")]
    NoClientConfig,
    /// The TLS configuration cannot be used.
    #[error(transparent)]
    Config(ConfigError),
    /// What the peer showed in the TLS handshake was not accepted here.
    #[error(
        "the peer failed this side's TLS checks: {0}; see that its issuer is trusted here and that \
         the certificate has the name connected to"
    )]
    Tls(rustls::Error),
    /// The client's first packet did not authenticate, or was not decided about in time.
    #[error(
        "the client's first packet is not authentic, or it waited longer than a handshake may \
         take; nothing to do but to accept the next one"
    )]
    NotAuthentic,
    /// The connection ended before its handshake did.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl From<endpoint::ConnectError> for ConnectError {
    fn from(e: endpoint::ConnectError) -> Self {
        match e {
            endpoint::ConnectError::Config(e) => Self::Config(e),
            endpoint::ConnectError::Address(addr) => Self::Address(addr),
            e => Self::Endpoint(e),
        }
    }
}

/// Why a stream takes no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer asked to stop; the stream was reset in answer.
    #[error("the peer wants no more of this stream, with code {0}")]
    Stopped(u64),
    /// This side finished or reset the stream before.
    #[error("this side finished or reset the stream before; open another")]
    Closed,
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why a stream gives no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer abandoned the stream.
    #[error("the peer reset the stream with code {0}; what it had not delivered is gone")]
    Reset(u64),
    /// This side stopped reading before.
    #[error("this side stopped reading the stream before")]
    Stopped,
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why a stream was not read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadToEndError {
    /// The peer sent more than the limit.
    #[error(
        "the peer sent more than the {0} bytes that were asked for; raise the limit or stop it"
    )]
    TooLong(usize),
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a buffer was not filled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadExactError {
    /// The peer finished the stream after this many bytes.
    #[error("the peer finished the stream after {0} bytes, before the buffer was full")]
    FinishedEarly(usize),
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a datagram was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendDatagramError {
    /// The peer takes no datagrams.
    #[error("the peer takes no datagrams: use a stream")]
    Unsupported,
    /// The datagram is longer than the peer takes or the path carries.
    #[error("the datagram is longer than the {max} bytes that fit now: split it")]
    TooLarge {
        /// The longest that fits now, in bytes.
        max: usize,
    },
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why a connection was not moved.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// It may not move, or not now.
    #[error(transparent)]
    Refused(MigrateError),
    /// It tried to, and stays where it is.
    #[error(transparent)]
    Failed(MigrationFailure),
    /// The address cannot be used.
    #[error("cannot bind a UDP socket to {0}: {1}")]
    Bind(SocketAddr, Arc<io::Error>),
    /// The shard cannot take another socket.
    #[error(transparent)]
    Socket(#[from] IoError),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why there is no such path.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// None may be opened, or not now.
    #[error(transparent)]
    Refused(#[from] OpenPathError),
    /// It is not there, or not any more.
    #[error(transparent)]
    Unusable(ClosePathError),
    /// The server did not answer there in time.
    #[error("the server did not answer from {0} on the new path")]
    NoAnswer(SocketAddr),
    /// The peer abandoned it before it was used.
    #[error("the peer abandoned the path: {0}")]
    Peer(Code),
    /// This side closed it before it was used.
    #[error("this side closed the path before it was used")]
    Closed,
    /// No socket of the local address reaches the server's.
    #[error("nothing bound to {local} reaches {remote}: take a local address of its family")]
    Family {
        /// Our end.
        local: SocketAddr,
        /// The server's.
        remote: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot bind a UDP socket to {0}: {1}")]
    Bind(SocketAddr, Arc<io::Error>),
    /// The shard cannot take another socket.
    #[error(transparent)]
    Socket(#[from] IoError),
    /// A stream cannot be pinned to it.
    #[error(transparent)]
    Pin(PinError),
    /// It takes no such datagram.
    #[error(transparent)]
    Datagram(DatagramError),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(#[source] ConnectionError),
}

/// Why no keying material was exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyingMaterialError {
    /// TLS refused the request.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The connection is over.
    #[error("the connection is over: {0}")]
    ConnectionLost(#[source] ConnectionError),
}

/// A connection attempt cannot be asked again to prove its address: it has.
#[derive(Debug, thiserror::Error)]
#[error("the client has proven its address already: accept or refuse it")]
pub struct RetryError(pub super::Incoming);

fn lost(e: &ConnectionError) -> io::ErrorKind {
    match e {
        ConnectionError::TimedOut | ConnectionError::HandshakeTimedOut => io::ErrorKind::TimedOut,
        ConnectionError::Reset => io::ErrorKind::ConnectionReset,
        ConnectionError::LocallyClosed | ConnectionError::EndpointClosed => {
            io::ErrorKind::NotConnected
        }
        _ => io::ErrorKind::ConnectionAborted,
    }
}

impl From<WriteError> for io::Error {
    fn from(e: WriteError) -> Self {
        let kind = match &e {
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
            WriteError::Closed => io::ErrorKind::BrokenPipe,
            WriteError::ConnectionLost(why) => lost(why),
        };
        Self::new(kind, e)
    }
}

impl From<ReadError> for io::Error {
    fn from(e: ReadError) -> Self {
        let kind = match &e {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::Stopped => io::ErrorKind::NotConnected,
            ReadError::ConnectionLost(why) => lost(why),
        };
        Self::new(kind, e)
    }
}
