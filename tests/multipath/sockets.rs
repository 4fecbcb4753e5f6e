//! A socket that takes nothing holds up its own path and no other.

use crate::common::pair::CLIENT;
use crate::rig::*;
use corelane::base::SocketId;
use corelane::path::{PathId, PathState};

#[test]
fn a_socket_that_is_stuck_holds_up_its_path_alone() {
    for stuck in [SocketId(0), SocketId(1)] {
        let mut rig = Rig::two_paths();
        let (client, other) = (rig.client, PathId(1 - stuck.0));
        let conn = rig.pair.conn(CLIENT, client);
        assert!(!conn.hold_paths(|_| true));
        assert!(!conn.may_resume(|_| true));
        assert!(conn.hold_paths(|s| s != stuck));
        assert!(!conn.may_resume(|s| s != stuck));
        let before = rig.info(CLIENT, PathId(stuck.0)).expect("there");
        rig.deliver(CLIENT, 1_000_000, 2000);
        let after = rig.info(CLIENT, PathId(stuck.0)).expect("there");
        assert_eq!(before.packets_sent, after.packets_sent);
        assert_eq!(after.state, PathState::Open);
        let carried = rig.info(CLIENT, other).expect("there");
        assert!(carried.counters.bytes_sent > 1_000_000, "{carried:?}");
        // It takes datagrams again.
        let conn = rig.pair.conn(CLIENT, client);
        assert!(conn.may_resume(|_| true));
        assert!(conn.hold_paths(|s| s == stuck));
        rig.deliver(CLIENT, 1_000_000, 4000);
        let again = rig.info(CLIENT, PathId(stuck.0)).expect("there");
        assert!(again.packets_sent > after.packets_sent + 500, "{again:?}");
    }
}
