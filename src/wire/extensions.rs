//! Which frames an extension of the protocol brings, and whether both ends have declared it.
//!
//! [`crate::wire::Frame::parse`] reads them all, whatever was declared: a frame of an extension
//! that was not is of unknown type (RFC 9000 §12.4), and [`Extensions`] is what says so. Extensions
//! that bind only one end (DATAGRAM, ACK frequency) are checked against our own configuration.

use super::error::TransportError;
use super::frame::ty;
use super::tparams::TransportParameters;

/// The extensions that both ends must declare, and have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Multipath: both sent `initial_max_path_id` (multipath §2.1).
    pub multipath: bool,
    /// The advertising of addresses: both sent our private `advertise_addresses`.
    pub addresses: bool,
}

impl Extensions {
    /// What two ends' parameters come to.
    pub const fn negotiated(local: &TransportParameters, peer: &TransportParameters) -> Self {
        Self {
            multipath: local.initial_max_path_id.is_some() && peer.initial_max_path_id.is_some(),
            addresses: local.advertise_addresses && peer.advertise_addresses,
        }
    }

    /// Whether a frame of type `ty` is known, as far as these extensions decide.
    #[inline]
    pub const fn know(self, ty: u64) -> bool {
        match ty {
            ty::PATH_ACK | ty::PATH_ACK_ECN | ty::PATH_ABANDON..=ty::PATH_CIDS_BLOCKED => {
                self.multipath
            }
            ty::ADD_ADDRESS..=ty::CLOSE_PATH => self.addresses,
            _ => true,
        }
    }

    /// An error of the parser as it is to be told: nobody reads the fields of an unknown frame.
    #[cold]
    pub const fn fault(self, error: TransportError) -> TransportError {
        if self.know(error.frame_type) {
            error
        } else {
            Self::unknown(error.frame_type)
        }
    }

    /// The error of a frame that is not known.
    #[cold]
    pub const fn unknown(ty: u64) -> TransportError {
        TransportError::frame_encoding_error("a frame of an extension that was not negotiated")
            .with_frame(ty)
    }
}

#[cfg(test)]
mod tests;
