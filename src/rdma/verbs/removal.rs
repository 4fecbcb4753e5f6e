//! Notices that a device is being taken away.
//!
//! A driver that can take a device from under its users tells them so by an event. One that cannot,
//! as rxe, tells them nothing, and whoever removes the device waits until all have closed it. What
//! both do first is to take away the device's node, and that can be watched.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Where devices have their nodes.
const NODES: &str = "/dev/infiniband";
/// Bytes of an event before its name: which watch, what, a number, the name's length.
const HEADER: usize = 16;

/// A device's node, watched.
#[derive(Debug)]
pub(super) struct Removal {
    watch: Option<File>,
    node: String,
}

fn watch(folder: &str) -> io::Result<File> {
    let path = CString::new(folder)?;
    // SAFETY: makes a descriptor that nobody else has.
    let watch = unsafe {
        let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: the descriptor is open, and the path ends with a zero.
    let added = unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&watch);
        libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_DELETE)
    };
    if added < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(watch.into())
}

impl Removal {
    /// Watches the node of this name, as `uverbs0`. Where there are no nodes to be seen, nothing is
    /// ever noticed.
    pub fn of(node: &str) -> Self {
        Self::within(NODES, node)
    }

    fn within(folder: &str, node: &str) -> Self {
        let watch = watch(folder);
        if let Err(error) = &watch {
            tracing::debug!(%error, folder, "the removal of a device is not noticed");
        }
        Self {
            watch: watch.ok(),
            node: node.to_owned(),
        }
    }

    /// Readable when some node went.
    pub fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Whether the node went since this was asked last.
    pub fn has_come(&self) -> bool {
        let Some(mut watch) = self.watch.as_ref() else {
            return false;
        };
        let (mut gone, mut bytes) = (false, [0; 4096]);
        while let Ok(n @ 1..) = watch.read(&mut bytes) {
            gone |= names(bytes.get(..n).unwrap_or_default(), self.node.as_bytes());
        }
        gone
    }
}

/// Whether one of the events has this name.
fn names(mut events: &[u8], node: &[u8]) -> bool {
    let mut found = false;
    while let Some((header, rest)) = events.split_at_checked(HEADER) {
        let len = header.last_chunk().map_or(0, |n| u32::from_ne_bytes(*n));
        let Some((name, next)) = rest.split_at_checked(len as usize) else {
            break;
        };
        // Zeros fill it up.
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        found |= name.get(..end) == Some(node);
        events = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_node_that_goes_is_noticed_once_and_others_are_not() {
        let folder = std::env::temp_dir().join(format!("corelane-nodes-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.to_str().unwrap();
        let removal = Removal::within(path, "uverbs1");
        let touch = |name: &str| fs::write(folder.join(name), "").unwrap();
        let remove = |name: &str| fs::remove_file(folder.join(name)).unwrap();
        ["uverbs1", "uverbs10", "uverbs"]
            .into_iter()
            .for_each(touch);
        assert!(!removal.has_come());
        ["uverbs10", "uverbs"].into_iter().for_each(remove);
        assert!(!removal.has_come());
        touch("uverbs10");
        ["uverbs10", "uverbs1"].into_iter().for_each(remove);
        assert!(removal.has_come() && !removal.has_come());
        fs::remove_dir(&folder).unwrap();
        let nowhere = Removal::within(path, "uverbs1");
        assert!(nowhere.wake_fd().is_none() && !nowhere.has_come());
    }
}
