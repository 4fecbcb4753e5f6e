//! The frames of the multipath extension and of our own that advertises addresses, as qlog shows
//! them. The schema of QUIC's events has no names for them; these follow its way of naming.

use super::event::{code, cut};
use super::frame::new_connection_id;
use super::json::Object;
use crate::wire::frame::{AddressFrame, PathFrame, PathStatus};

pub(super) fn path_frame_name(f: &PathFrame) -> &'static str {
    match f {
        PathFrame::Abandon { .. } => "path_abandon",
        PathFrame::Status { status, .. } => match status {
            PathStatus::Backup => "path_status_backup",
            PathStatus::Available => "path_status_available",
        },
        PathFrame::NewConnectionId { .. } => "path_new_connection_id",
        PathFrame::RetireConnectionId { .. } => "path_retire_connection_id",
        PathFrame::MaxPathId(_) => "max_path_id",
        PathFrame::PathsBlocked(_) => "paths_blocked",
        PathFrame::CidsBlocked { .. } => "path_cids_blocked",
    }
}

pub(super) fn path_frame(d: &mut Object<'_>, f: &PathFrame) {
    if let PathFrame::MaxPathId(max) | PathFrame::PathsBlocked(max) = f {
        d.number("maximum_path_id", max.0.into());
        return;
    }
    d.number("path_id", f.path().0.into());
    match f {
        PathFrame::Abandon { error, .. } => code(d, "error_code", *error),
        PathFrame::Status { seq, .. } => d.number("path_status_sequence_number", *seq),
        PathFrame::NewConnectionId { new, .. } => new_connection_id(d, new),
        PathFrame::RetireConnectionId { seq, .. } => d.number("sequence_number", *seq),
        PathFrame::CidsBlocked { next_seq, .. } => d.number("next_sequence_number", *next_seq),
        PathFrame::MaxPathId(_) | PathFrame::PathsBlocked(_) => {}
    }
}

pub(super) fn address_frame_name(f: &AddressFrame<'_>) -> &'static str {
    match f {
        AddressFrame::AddAddress(_) => "add_address",
        AddressFrame::Paths { .. } => "paths",
        AddressFrame::ClosePath { .. } => "close_path",
    }
}

pub(super) fn address_frame(d: &mut Object<'_>, f: &AddressFrame<'_>) {
    match f {
        AddressFrame::AddAddress(f) => {
            d.number("address_id", f.id);
            d.number("sequence_number", f.seq);
            d.text("ip", &f.addr.ip().to_string());
            d.number("port", f.addr.port().into());
        }
        AddressFrame::Paths { available, active } => {
            d.number("available_paths", *available);
            d.number("active_paths", *active);
        }
        AddressFrame::ClosePath {
            path,
            error,
            reason,
        } => {
            d.number("path_id", path.0.into());
            code(d, "error_code", *error);
            d.text("reason", cut(&String::from_utf8_lossy(reason)));
        }
    }
}
