//! The frames of our own extension that advertises addresses: ADD_ADDRESS, PATHS and CLOSE_PATH,
//! with the types and fields that they have in the multipath QUIC for Go.
//!
//! They stand next to the multipath extension, which says nothing of addresses, and are known only
//! where both ends sent our transport parameter (`wire::extensions`). What they say is a hint: an
//! address that a peer names gets no data before its path is validated.

use super::multipath::path_id;
use super::{TransportError, ty};
use crate::base::PathId;
use crate::wire::error::Code;
use crate::wire::varint::{Reader, Writer, size};
use std::net::{IpAddr, SocketAddr};

/// Bytes of an ADD_ADDRESS frame at most.
pub const ADD_ADDRESS_SIZE: usize = 2 + 8 + 8 + 1 + 16 + 2;
/// Bytes of a PATHS frame at most.
pub const PATHS_SIZE: usize = 2 + 8 + 8;

/// An ADD_ADDRESS frame: where the sender can be reached too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddAddress {
    /// The sender's name for the address.
    pub id: u64,
    /// Later frames about this address have larger numbers.
    pub seq: u64,
    /// The address; its port is not 0.
    pub addr: SocketAddr,
}

/// A frame of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFrame<'a> {
    /// ADD_ADDRESS.
    AddAddress(AddAddress),
    /// PATHS: how many paths the sender has.
    Paths {
        /// Paths that it could use.
        available: u64,
        /// Paths that it uses.
        active: u64,
    },
    /// CLOSE_PATH: the sender asks that the path be abandoned.
    ClosePath {
        /// The path.
        path: PathId,
        /// Why.
        error: Code,
        /// A phrase, usually UTF-8.
        reason: &'a [u8],
    },
}

impl<'a> AddressFrame<'a> {
    /// Reads the frame after its type `ty`, ADD_ADDRESS to CLOSE_PATH.
    pub(super) fn parse(r: &mut Reader<'a>, ty: u64) -> Result<Self, TransportError> {
        Ok(match ty {
            ty::ADD_ADDRESS => Self::AddAddress(AddAddress::parse(r)?),
            ty::PATHS => Self::Paths {
                available: r.varint()?,
                active: r.varint()?,
            },
            ty::CLOSE_PATH => Self::ClosePath {
                path: path_id(r)?,
                error: Code(r.varint()?),
                reason: super::prefixed(r)?,
            },
            _ => return Err(super::unknown_type()),
        })
    }

    /// The frame's type.
    pub const fn ty(&self) -> u64 {
        match self {
            Self::AddAddress(_) => ty::ADD_ADDRESS,
            Self::Paths { .. } => ty::PATHS,
            Self::ClosePath { .. } => ty::CLOSE_PATH,
        }
    }

    /// Bytes that [`Self::write`] takes at most.
    pub const fn write_size(&self) -> usize {
        match self {
            Self::AddAddress(_) => ADD_ADDRESS_SIZE,
            Self::Paths { .. } => PATHS_SIZE,
            Self::ClosePath { reason, .. } => 2 + 8 + 8 + size(reason.len() as u64) + reason.len(),
        }
    }

    /// Appends the frame; [`Self::write_size`] bytes of room are enough.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::AddAddress(f) => write_add_address(w, f),
            Self::Paths { available, active } => write_paths(w, *available, *active),
            Self::ClosePath {
                path,
                error,
                reason,
            } => {
                w.varint(ty::CLOSE_PATH);
                w.varint(path.0.into());
                w.varint(error.0);
                w.varint(reason.len() as u64);
                w.bytes(reason);
            }
        }
    }
}

impl AddAddress {
    fn parse(r: &mut Reader<'_>) -> Result<Self, TransportError> {
        let (id, seq) = (r.varint()?, r.varint()?);
        let ip = match r.u8()? {
            4 => IpAddr::from(r.array::<4>()?),
            6 => IpAddr::from(r.array::<16>()?),
            _ => {
                return Err(TransportError::frame_encoding_error(
                    "an advertised address is of neither IP version",
                ));
            }
        };
        match r.u16()? {
            0 => Err(TransportError::frame_encoding_error(
                "an advertised address has port 0",
            )),
            port => Ok(Self {
                id,
                seq,
                addr: SocketAddr::new(ip, port),
            }),
        }
    }
}

/// Appends an ADD_ADDRESS frame. Its port is not 0.
pub fn write_add_address(w: &mut Writer<'_>, f: &AddAddress) {
    debug_assert!(f.addr.port() != 0, "nobody can send there");
    w.varint(ty::ADD_ADDRESS);
    w.varint(f.id);
    w.varint(f.seq);
    match f.addr.ip() {
        IpAddr::V4(ip) => {
            w.u8(4);
            w.bytes(&ip.octets());
        }
        IpAddr::V6(ip) => {
            w.u8(6);
            w.bytes(&ip.octets());
        }
    }
    w.u16(f.addr.port());
}

/// Appends a PATHS frame.
pub fn write_paths(w: &mut Writer<'_>, available: u64, active: u64) {
    w.varint(ty::PATHS);
    w.varint(available);
    w.varint(active);
}
