//! Several paths in a world: the client opens, closes and prefers them as its seed says, instead of
//! moving from one address to another.

use super::World;
use corelane::base::{FourTuple, Rng, Timestamp};
use corelane::conn::OpenPathError;
use corelane::path::{PathId, PathState, PathStatus};
use corelane::wire::Code;
use std::time::Duration;

/// Paths that either side admits.
pub(super) const MOST: u32 = 4;

/// What a client does with its paths.
pub(super) struct Changes {
    rng: Rng,
    /// Changes to come, and when the next is due.
    left: u64,
    at: Timestamp,
    /// Paths that were opened.
    pub(super) opened: usize,
}

impl Changes {
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        let mut rng = Rng::from_u64(seed.rotate_left(32));
        Self {
            left: 1 + rng.below(20),
            at: now,
            opened: 0,
            rng,
        }
    }
}

impl World {
    /// Makes the next change, if it is due.
    pub(super) fn change_paths(&mut self) -> Result<(), String> {
        let (Some(changes), Some(id)) = (&mut self.paths, self.client.app().connection()) else {
            return Ok(());
        };
        if changes.left == 0 || self.now < changes.at {
            return Ok(());
        }
        let rng = &mut changes.rng;
        changes.left -= 1;
        changes.at = self.now + Duration::from_millis(rng.below(800));
        let (socket, local) = self.client.sockets()[rng.below(3) as usize];
        let status = match rng.chance(0.3) {
            true => PathStatus::Backup,
            false => PathStatus::Available,
        };
        let (what, which) = (rng.below(4), rng.below(u64::from(MOST)) as usize);
        let (now, remote) = (self.now, self.remote);
        let opened = self.client.with_context(now, |_, ctx| {
            let Some(conn) = ctx.connection(id) else {
                return Err(OpenPathError::Closed);
            };
            // One that does not work yet may never do so: it is not all that is kept.
            let open = conn.paths().filter(|p| p.state == PathState::Open);
            let open: Vec<PathId> = open.map(|p| p.id).collect();
            let path = open.get(which % open.len().max(1)).copied();
            match (what, path) {
                // What was closed meanwhile says so, which is no fault.
                (0, Some(path)) if open.len() > 1 => {
                    let _ = conn.close_path(now, path, Code::NO_ERROR);
                    Ok(0)
                }
                (1, Some(path)) => {
                    let _ = conn.set_path_status(path, status);
                    Ok(0)
                }
                _ => {
                    let tuple = FourTuple::new(local, remote);
                    ctx.open_path(id, socket, tuple, status).map(|_| 1)
                }
            }
        });
        match opened {
            Ok(n) => changes.opened += n,
            Err(
                OpenPathError::Closed | OpenPathError::NoPathId | OpenPathError::NoConnectionId,
            ) => {}
            Err(e) => return Err(format!("a path was refused: {e}")),
        }
        Ok(())
    }
}
