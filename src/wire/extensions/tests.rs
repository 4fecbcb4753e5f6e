//! Who knows which frame.

use super::*;
use crate::base::PathId;
use crate::wire::Code;
use crate::wire::frame::ty;

fn declares(multipath: bool, addresses: bool) -> TransportParameters {
    TransportParameters {
        initial_max_path_id: multipath.then_some(PathId::ZERO),
        advertise_addresses: addresses,
        ..TransportParameters::default()
    }
}

#[test]
fn an_extension_takes_two() {
    for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
        let agreed = Extensions::negotiated(&declares(a, b), &declares(b, a));
        assert_eq!((agreed.multipath, agreed.addresses), (a && b, a && b));
    }
    let agreed = Extensions::negotiated(&declares(true, false), &declares(true, true));
    assert!(agreed.multipath && !agreed.addresses);
}

#[test]
fn each_frame_is_known_with_its_extension_alone() {
    let none = Extensions::default();
    let multipath = Extensions {
        multipath: true,
        ..none
    };
    let addresses = Extensions {
        addresses: true,
        ..none
    };
    for ty in [0x3e, 0x3f].into_iter().chain(0x3e75..=0x3e7c) {
        assert!(multipath.know(ty) && !addresses.know(ty) && !none.know(ty));
    }
    for ty in 0x40..=0x42 {
        assert!(addresses.know(ty) && !multipath.know(ty) && !none.know(ty));
    }
    for ty in [ty::PADDING, ty::STREAM, ty::DATAGRAM, ty::ACK_FREQUENCY] {
        assert!(none.know(ty));
    }
}

#[test]
fn the_fields_of_an_unknown_frame_do_not_matter() {
    let error = TransportError::protocol_violation("too large").with_frame(ty::MAX_PATH_ID);
    let unknown = Extensions::default().fault(error);
    assert_eq!(unknown.code, Code::FRAME_ENCODING_ERROR);
    assert_eq!(unknown.frame_type, ty::MAX_PATH_ID);
    let both = Extensions {
        multipath: true,
        addresses: true,
    };
    assert_eq!(both.fault(error), error);
    let other = TransportError::final_size_error("changed").with_frame(ty::STREAM);
    assert_eq!(Extensions::default().fault(other), other);
}
