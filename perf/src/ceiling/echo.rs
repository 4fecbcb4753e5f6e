//! The least that a request and its answer can take: one packet there and one back between two
//! threads that never sleep, with or without packet protection at both ends.

use std::hint::spin_loop;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{Cipher, HEADER, Settings, TAG, write_header};
use crate::clock::{now, spawn_pinned};
use crate::meter::{Latency, Meter, Sample, new_latency};

/// After this long a packet is given up.
const LOST: Duration = Duration::from_millis(100);
/// Room for a packet, bytes.
const BUFFER: usize = 2048;
/// The longest message, bytes.
pub const MESSAGE_MAX: usize = BUFFER - HEADER - TAG;
/// Looks at the socket between two at whether to stop, and between two offers of the core.
const LOOKS: u32 = 1000;

/// Runs it with messages of `settings.payload` bytes, to which sealing adds a header and a tag.
/// Operations are answers, failures packets that were lost or did not open.
///
/// # Errors
/// When a socket or a thread cannot be had, or the message is too long.
pub fn run(settings: &Settings) -> io::Result<(Sample, Latency)> {
    if settings.payload > MESSAGE_MAX {
        let why = format!("a message has {MESSAGE_MAX} bytes at most");
        return Err(io::Error::other(why));
    }
    let meter = Arc::new(Meter::default());
    let set = *settings;
    let (tell_addr, addr) = mpsc::channel();
    let stop = meter.clone();
    let (server_clock, server) = spawn_pinned("server-0", set.server_core, move || {
        let socket = socket()?;
        let _ = tell_addr.send(socket.local_addr()?);
        answer(&socket, &End::new(&set), &stop)
    })?;
    let Ok(to) = addr.recv() else {
        server.join()??;
        return Err(io::Error::other("the server ended early"));
    };
    let counts = meter.clone();
    let (client_clock, client) = spawn_pinned("client-0", set.client_core, move || {
        let socket = socket()?;
        socket.connect(to)?;
        request(&socket, &End::new(&set), &counts)
    })?;
    let sample = meter.measure(set.warm_up, set.window, client_clock, server_clock);
    meter.stop();
    let latency = client.join()?;
    server.join()??;
    Ok((sample?, latency?))
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// One end's packets.
struct End {
    cipher: Option<Cipher>,
    len: usize,
}

impl End {
    fn new(settings: &Settings) -> Self {
        let more = if settings.sealed { HEADER + TAG } else { 0 };
        Self {
            cipher: settings.sealed.then(Cipher::new),
            len: settings.payload + more,
        }
    }

    fn packet(&self, number: u32) -> Vec<u8> {
        let mut packet = vec![0x5a; self.len];
        self.seal(&mut packet, number);
        packet
    }

    /// Writes the packet that `packet` has room for.
    fn seal(&self, packet: &mut [u8], number: u32) {
        if let Some(cipher) = &self.cipher {
            write_header(packet, number);
            cipher.seal(packet, number);
        }
    }

    fn open(&self, packet: &mut [u8]) -> bool {
        packet.len() == self.len && self.cipher.as_ref().is_none_or(|c| c.open(packet))
    }
}

fn answer(socket: &UdpSocket, end: &End, meter: &Meter) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    let mut number = 0;
    loop {
        let Some((len, from)) = poll(meter, None, || socket.recv_from(&mut buffer))? else {
            return Ok(());
        };
        if end.open(&mut buffer[..len]) {
            number += 1;
            end.seal(&mut buffer[..len], number);
            socket.send_to(&buffer[..len], from)?;
        }
    }
}

fn request(socket: &UdpSocket, end: &End, meter: &Meter) -> io::Result<Latency> {
    let mut latency = new_latency();
    let mut buffer = [0; BUFFER];
    let mut packet = end.packet(0);
    let mut number = 0;
    while !meter.is_stopped() {
        let begin = now();
        number += 1;
        end.seal(&mut packet, number);
        socket.send(&packet)?;
        match poll(meter, Some(LOST), || socket.recv(&mut buffer))? {
            Some(len) if end.open(&mut buffer[..len]) => {
                meter.operations.add(1);
                meter.bytes.add(len as u64);
                if meter.is_measuring() {
                    let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    latency.saturating_record(nanos.max(1));
                }
            }
            _ if meter.is_stopped() => break,
            _ => meter.failures.add(1),
        }
    }
    Ok(latency)
}

/// Looks at the socket until something comes, the run ends or the patience does.
fn poll<T>(
    meter: &Meter,
    patience: Option<Duration>,
    mut look: impl FnMut() -> io::Result<T>,
) -> io::Result<Option<T>> {
    let begin = now();
    loop {
        for _ in 0..LOOKS {
            match look() {
                Ok(value) => return Ok(Some(value)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => spin_loop(),
                // The other end is gone, which is seen on a socket that is connected.
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        if meter.is_stopped() || patience.is_some_and(|limit| begin.elapsed() > limit) {
            return Ok(None);
        }
        // Nothing comes for so long only where both ends share a core.
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_and_open() {
        for sealed in [false, true] {
            let settings = Settings {
                sealed,
                payload: 64,
                server_core: 0,
                client_core: 0,
                warm_up: Duration::ZERO,
                window: Duration::from_millis(300),
            };
            let (sample, latency) = run(&settings).unwrap();
            assert!(sample.operations > 0, "{sample:?}");
            assert!(!latency.is_empty() && latency.len() <= sample.operations + 1);
        }
    }

    #[test]
    fn messages_that_no_buffer_holds_are_refused() {
        let settings = Settings {
            sealed: true,
            payload: MESSAGE_MAX + 1,
            server_core: 0,
            client_core: 0,
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
        };
        assert!(run(&settings).is_err());
    }

    #[test]
    fn a_packet_opens_at_the_other_end_only_as_it_was() {
        let settings = Settings {
            sealed: true,
            payload: 64,
            server_core: 0,
            client_core: 0,
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
        };
        let end = End::new(&settings);
        assert_eq!(end.len, 93);
        assert!(end.open(&mut end.packet(7)));
        let mut changed = end.packet(7);
        changed[50] ^= 1;
        assert!(!end.open(&mut changed) && !end.open(&mut end.packet(7)[..92]));
    }
}
