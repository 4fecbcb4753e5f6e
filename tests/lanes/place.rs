//! Where a test's two ends are, and whose queue pairs they have: `roce` on loopback; or, in the
//! guest that `tools/rdma-vm` starts, what `CORELANE_LANES` says, the server's provider first.

use corelane::shard::lanes::{PortConfig, ProviderChoice};
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// One end's place.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The device of the kernel's; `None` in user space.
    device: Option<&'static str>,
    v4: [u8; 4],
    v6: Ipv6Addr,
    /// The network namespace; `None` for the one that we are in.
    namespace: Option<&'static str>,
}

const LOOPBACK: Place = Place {
    device: None,
    v4: [127, 0, 0, 1],
    v6: Ipv6Addr::LOCALHOST,
    namespace: None,
};
const RXE: Place = Place {
    device: Some("rxe2"),
    v4: [10, 97, 0, 1],
    v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    namespace: None,
};
/// A device that a test makes and takes away.
pub const BRIEF: Place = Place {
    device: Some("rxe8"),
    v4: [10, 96, 0, 1],
    ..RXE
};
/// Where rxe has not taken the port.
const PEER: Place = Place {
    device: None,
    v4: [10, 97, 0, 2],
    v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    namespace: Some("/run/netns/peer"),
};

/// Whether both ends are `roce` on this machine.
pub fn is_native() -> bool {
    std::env::var_os("CORELANE_LANES").is_none()
}

/// Whether both ends are devices of the kernel's.
pub fn is_verbs() -> bool {
    std::env::var("CORELANE_LANES").is_ok_and(|which| which == "verbs")
}

/// Where an end is, by its role.
pub fn place(server: bool) -> Place {
    let Ok(which) = std::env::var("CORELANE_LANES") else {
        return LOOPBACK;
    };
    match (which.as_str(), server) {
        // One of each pair; over IPv6 both are at the third device.
        ("verbs", true) => Place {
            device: Some("rxe1"),
            v4: [10, 99, 0, 2],
            ..RXE
        },
        ("verbs", false) => Place {
            device: Some("rxe0"),
            v4: [10, 99, 0, 1],
            ..RXE
        },
        ("verbs-roce", true) | ("roce-verbs", false) => RXE,
        ("verbs-roce", false) | ("roce-verbs", true) => PEER,
        _ => panic!("CORELANE_LANES: verbs, verbs-roce or roce-verbs"),
    }
}

impl Place {
    /// Its address.
    pub fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }

    /// What its port is made from.
    pub fn port(&self, v6: bool) -> PortConfig {
        let mut config = PortConfig::new(self.ip(v6));
        if let Some(device) = self.device {
            config.provider = ProviderChoice::Verbs;
            config.device = Some(if v6 { "rxe2" } else { device }.into());
        } else {
            config.provider = ProviderChoice::Roce;
            // Devices of the kernel's reach the standard's port only.
            config.roce_port = if is_native() { Some(0) } else { None };
        }
        config
    }

    /// Calls `f` where this is: sockets are of the namespace in which they are made.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let Some(namespace) = self.namespace else {
            return f();
        };
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let file = File::open(namespace).expect("the namespace");
                // SAFETY: moves this thread alone, by a descriptor that is open.
                let moved = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(moved, 0, "{}", std::io::Error::last_os_error());
                f()
            });
            there.join().expect("done there")
        })
    }
}
