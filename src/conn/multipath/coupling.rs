//! Coupled congestion control: a controller that looks at the connection's other paths is told of
//! them before it hears of an acknowledgement or of congestion.

use super::super::Connection;
use crate::path::PathState;
use crate::recovery::CoupledGroup;

impl Connection {
    /// Tells the controller of the path in hand of all paths that carry data.
    #[inline]
    pub(in super::super) fn couple(&mut self) {
        if self.paths.current().cc.is_coupled() {
            self.couple_paths();
        }
    }

    #[cold]
    fn couple_paths(&mut self) {
        let mut group = CoupledGroup::default();
        for path in self.paths.iter() {
            let carries = !path.is_suspect() && !path.status.is_backup();
            if path.state == PathState::Open && carries {
                group.push(path.id.0, &path.cc, &path.rtt);
            }
        }
        let path = self.paths.current_mut();
        path.cc.couple(&group, path.id.0);
    }
}
