//! The frames of the multipath extension (multipath §4): contents, parser and writers.
//!
//! A path identifier above 2^32 − 1 is above whatever was announced, and so a PROTOCOL_VIOLATION;
//! the limits below that are the connection's to check, and so is whether the extension was
//! negotiated (`wire::extensions`). The body of PATH_ACK is `ack`'s.

use super::control::write_new_connection_id_body;
use super::{Ack, Frame, NEW_CONNECTION_ID_SIZE, NewConnectionId, TransportError, ty};
use crate::base::PathId;
use crate::wire::error::Code;
use crate::wire::varint::{Reader, Writer};

/// Bytes of a path identifier at most.
const ID: usize = 8;
/// Bytes of a PATH_ABANDON frame at most.
pub const PATH_ABANDON_SIZE: usize = 2 + ID + 8;
/// Bytes of a PATH_STATUS_BACKUP or PATH_STATUS_AVAILABLE frame at most.
pub const PATH_STATUS_SIZE: usize = 2 + ID + 8;
/// Bytes of a PATH_NEW_CONNECTION_ID frame at most.
pub const PATH_NEW_CONNECTION_ID_SIZE: usize = 1 + ID + NEW_CONNECTION_ID_SIZE;
/// Bytes of a PATH_RETIRE_CONNECTION_ID frame at most.
pub const PATH_RETIRE_CONNECTION_ID_SIZE: usize = 2 + ID + 8;
/// Bytes of a MAX_PATH_ID frame at most.
pub const MAX_PATH_ID_SIZE: usize = 2 + ID;
/// Bytes of a PATHS_BLOCKED frame at most.
pub const PATHS_BLOCKED_SIZE: usize = 2 + ID;
/// Bytes of a PATH_CIDS_BLOCKED frame at most.
pub const PATH_CIDS_BLOCKED_SIZE: usize = 2 + ID + 8;

/// What one end would have the other use a path for (multipath §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathStatus {
    /// For whatever the sender likes.
    Available,
    /// For nothing while an available path works.
    Backup,
}

/// A frame of the multipath extension other than PATH_ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFrame {
    /// PATH_ABANDON (§4.2): the sender is done with the path.
    Abandon {
        /// The path.
        path: PathId,
        /// Why; NO_ERROR where nothing went wrong.
        error: Code,
    },
    /// PATH_STATUS_BACKUP or PATH_STATUS_AVAILABLE (§4.3).
    Status {
        /// The path.
        path: PathId,
        /// What it is from now on.
        status: PathStatus,
        /// Later frames about this path have larger numbers; one that came late is ignored.
        seq: u64,
    },
    /// PATH_NEW_CONNECTION_ID (§4.4).
    NewConnectionId {
        /// The path that the connection ID is for.
        path: PathId,
        /// What a NEW_CONNECTION_ID frame says, with the path's own sequence numbers.
        new: NewConnectionId,
    },
    /// PATH_RETIRE_CONNECTION_ID (§4.5).
    RetireConnectionId {
        /// The path that the connection ID is for.
        path: PathId,
        /// The connection ID's sequence number on that path.
        seq: u64,
    },
    /// MAX_PATH_ID (§4.6): the largest path identifier that the sender takes.
    MaxPathId(PathId),
    /// PATHS_BLOCKED (§4.7): the largest path identifier that the sender may use.
    PathsBlocked(PathId),
    /// PATH_CIDS_BLOCKED (§4.7).
    CidsBlocked {
        /// The path that lacks connection IDs.
        path: PathId,
        /// The sequence number of the connection ID that the sender expects next.
        next_seq: u64,
    },
}

/// Reads a PATH_ACK frame after its type.
#[inline]
pub(super) fn parse_ack<'a>(r: &mut Reader<'a>, first: u8) -> Result<Frame<'a>, TransportError> {
    let path = path_id(r)?;
    let ack = Ack::parse(r, first)?;
    Ok(Frame::PathAck { path, ack })
}

/// A path identifier (§2.1, §4).
#[inline]
pub(super) fn path_id(r: &mut Reader<'_>) -> Result<PathId, TransportError> {
    match u32::try_from(r.varint()?) {
        Ok(id) => Ok(PathId(id)),
        Err(_) => Err(TransportError::protocol_violation(
            "a path identifier above 2^32 - 1",
        )),
    }
}

impl PathFrame {
    /// Reads the frame after its type `ty`, PATH_ABANDON to PATH_CIDS_BLOCKED.
    pub(super) fn parse(r: &mut Reader<'_>, ty: u64) -> Result<Self, TransportError> {
        let path = path_id(r)?;
        Ok(match ty {
            ty::PATH_ABANDON => Self::Abandon {
                path,
                error: Code(r.varint()?),
            },
            ty::PATH_STATUS_BACKUP => Self::Status {
                path,
                status: PathStatus::Backup,
                seq: r.varint()?,
            },
            ty::PATH_STATUS_AVAILABLE => Self::Status {
                path,
                status: PathStatus::Available,
                seq: r.varint()?,
            },
            ty::PATH_NEW_CONNECTION_ID => Self::NewConnectionId {
                path,
                new: NewConnectionId::parse(r)?,
            },
            ty::PATH_RETIRE_CONNECTION_ID => Self::RetireConnectionId {
                path,
                seq: r.varint()?,
            },
            ty::MAX_PATH_ID => Self::MaxPathId(path),
            ty::PATHS_BLOCKED => Self::PathsBlocked(path),
            ty::PATH_CIDS_BLOCKED => Self::CidsBlocked {
                path,
                next_seq: r.varint()?,
            },
            _ => return Err(super::unknown_type()),
        })
    }

    /// The frame's type.
    pub const fn ty(&self) -> u64 {
        match self {
            Self::Abandon { .. } => ty::PATH_ABANDON,
            Self::Status { status, .. } => status_ty(*status),
            Self::NewConnectionId { .. } => ty::PATH_NEW_CONNECTION_ID,
            Self::RetireConnectionId { .. } => ty::PATH_RETIRE_CONNECTION_ID,
            Self::MaxPathId(_) => ty::MAX_PATH_ID,
            Self::PathsBlocked(_) => ty::PATHS_BLOCKED,
            Self::CidsBlocked { .. } => ty::PATH_CIDS_BLOCKED,
        }
    }

    /// The path that the frame is about; of MAX_PATH_ID and PATHS_BLOCKED the largest there may be.
    pub const fn path(&self) -> PathId {
        match self {
            Self::Abandon { path, .. }
            | Self::Status { path, .. }
            | Self::NewConnectionId { path, .. }
            | Self::RetireConnectionId { path, .. }
            | Self::MaxPathId(path)
            | Self::PathsBlocked(path)
            | Self::CidsBlocked { path, .. } => *path,
        }
    }

    /// Bytes that [`Self::write`] takes at most.
    pub const fn write_size(&self) -> usize {
        match self {
            Self::Abandon { .. } => PATH_ABANDON_SIZE,
            Self::Status { .. } => PATH_STATUS_SIZE,
            Self::NewConnectionId { .. } => PATH_NEW_CONNECTION_ID_SIZE,
            Self::RetireConnectionId { .. } => PATH_RETIRE_CONNECTION_ID_SIZE,
            Self::MaxPathId(_) => MAX_PATH_ID_SIZE,
            Self::PathsBlocked(_) => PATHS_BLOCKED_SIZE,
            Self::CidsBlocked { .. } => PATH_CIDS_BLOCKED_SIZE,
        }
    }

    /// Appends the frame; [`Self::write_size`] bytes of room are enough.
    pub fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Abandon { path, error } => write_path_abandon(w, *path, *error),
            Self::Status { path, status, seq } => write_path_status(w, *path, *status, *seq),
            Self::NewConnectionId { path, new } => write_path_new_connection_id(w, *path, new),
            Self::RetireConnectionId { path, seq } => {
                write_path_retire_connection_id(w, *path, *seq);
            }
            Self::MaxPathId(max) => write_max_path_id(w, *max),
            Self::PathsBlocked(max) => write_paths_blocked(w, *max),
            Self::CidsBlocked { path, next_seq } => {
                write_path_cids_blocked(w, *path, *next_seq);
            }
        }
    }
}

const fn status_ty(status: PathStatus) -> u64 {
    match status {
        PathStatus::Backup => ty::PATH_STATUS_BACKUP,
        PathStatus::Available => ty::PATH_STATUS_AVAILABLE,
    }
}

fn head(w: &mut Writer<'_>, ty: u64, path: PathId) {
    w.varint(ty);
    w.varint(path.0.into());
}

/// Appends a PATH_ABANDON frame.
pub fn write_path_abandon(w: &mut Writer<'_>, path: PathId, error: Code) {
    head(w, ty::PATH_ABANDON, path);
    w.varint(error.0);
}

/// Appends a PATH_STATUS_BACKUP or PATH_STATUS_AVAILABLE frame.
pub fn write_path_status(w: &mut Writer<'_>, path: PathId, status: PathStatus, seq: u64) {
    head(w, status_ty(status), path);
    w.varint(seq);
}

/// Appends a PATH_NEW_CONNECTION_ID frame. Its connection ID is not empty.
pub fn write_path_new_connection_id(w: &mut Writer<'_>, path: PathId, new: &NewConnectionId) {
    debug_assert!(!new.cid.is_empty() && new.retire_prior_to <= new.seq);
    head(w, ty::PATH_NEW_CONNECTION_ID, path);
    write_new_connection_id_body(w, new);
}

/// Appends a PATH_RETIRE_CONNECTION_ID frame.
pub fn write_path_retire_connection_id(w: &mut Writer<'_>, path: PathId, seq: u64) {
    head(w, ty::PATH_RETIRE_CONNECTION_ID, path);
    w.varint(seq);
}

/// Appends a MAX_PATH_ID frame.
pub fn write_max_path_id(w: &mut Writer<'_>, max: PathId) {
    head(w, ty::MAX_PATH_ID, max);
}

/// Appends a PATHS_BLOCKED frame.
pub fn write_paths_blocked(w: &mut Writer<'_>, max: PathId) {
    head(w, ty::PATHS_BLOCKED, max);
}

/// Appends a PATH_CIDS_BLOCKED frame.
pub fn write_path_cids_blocked(w: &mut Writer<'_>, path: PathId, next_seq: u64) {
    head(w, ty::PATH_CIDS_BLOCKED, path);
    w.varint(next_seq);
}

#[cfg(test)]
pub(super) mod tests;
