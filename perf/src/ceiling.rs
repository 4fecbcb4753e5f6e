//! What the kernel and the cipher alone allow: trains of packets from one pinned thread to another
//! over loopback, with GSO and GRO, with or without QUIC's packet and header protection.
//!
//! No transport: a window that is always open and never lost stands for congestion and flow
//! control, and the same bytes are sent again and again. The sender seals in place, so that nothing
//! is copied in user space. An implementation of QUIC can come near it; past it only where it uses
//! its trains better. [`echo`] is the same for one small message there and back.

pub mod echo;

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use ring::aead::quic::HeaderProtectionKey;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use socket2::SockRef;

use crate::clock::{now, spawn_pinned};
use crate::meter::{Counter, Meter, Sample};

/// A short header: the first byte, eight bytes of connection ID, four of packet number.
const HEADER: usize = 13;
const PACKET_NUMBER_AT: usize = 9;
const TAG: usize = 16;
const SAMPLE: usize = 16;
/// The smallest payload that holds a header, a sample and a tag.
pub const PAYLOAD_MIN: usize = HEADER + SAMPLE + TAG;
/// The largest that IPv4 carries.
pub const PAYLOAD_MAX: usize = 65_507;
/// What is in flight at most, bytes: what fits into the socket's buffer with the kernel's overhead.
const IN_FLIGHT: u64 = 1 << 20;
const BUFFER: usize = 8 << 20;
const STALLED: Duration = Duration::from_millis(100);

/// A run's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Seal and open with AES-128-GCM, or leave the packets alone.
    pub sealed: bool,
    /// UDP payload, bytes; of an echo, the message in it.
    pub payload: usize,
    /// The core of the receiver, which also answers.
    pub server_core: usize,
    /// The core of the sender, which also asks.
    pub client_core: usize,
    /// Time before the window.
    pub warm_up: Duration,
    /// The window.
    pub window: Duration,
}

/// Runs it. Operations are packets that arrived and opened, failures those that did not open.
///
/// # Errors
/// When a socket or a thread cannot be had.
pub fn run(settings: &Settings) -> io::Result<Sample> {
    if !(PAYLOAD_MIN..=PAYLOAD_MAX).contains(&settings.payload) {
        let why = format!("a packet has {PAYLOAD_MIN} to {PAYLOAD_MAX} bytes");
        return Err(io::Error::other(why));
    }
    let meter = Arc::new(Meter::default());
    let wire = Arc::new(Counter::default());
    let set = *settings;
    let (tell_addr, addr) = mpsc::channel();
    let (counts, arrived) = (meter.clone(), wire.clone());
    let (server_clock, server) = spawn_pinned("server-0", set.server_core, move || {
        let (socket, state) = socket()?;
        // Blocking, with a look at the meter now and then.
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let _ = tell_addr.send(socket.local_addr()?);
        receive(&socket, &state, set.sealed, &counts, &arrived)
    })?;
    let Ok(to) = addr.recv() else {
        server.join()??;
        return Err(io::Error::other("the receiver ended early"));
    };
    let counts = meter.clone();
    let (client_clock, client) = spawn_pinned("client-0", set.client_core, move || {
        let (socket, state) = socket()?;
        socket.set_nonblocking(false)?;
        send(&socket, &state, to, &set, &counts, &wire)
    })?;
    let sample = meter.measure(set.warm_up, set.window, client_clock, server_clock);
    meter.stop();
    client.join()??;
    server.join()??;
    sample
}

fn socket() -> io::Result<(UdpSocket, UdpSocketState)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let options = SockRef::from(&socket);
    options.set_recv_buffer_size(BUFFER)?;
    options.set_send_buffer_size(BUFFER)?;
    let state = UdpSocketState::new((&socket).into())?;
    Ok((socket, state))
}

fn send(
    socket: &UdpSocket,
    state: &UdpSocketState,
    to: SocketAddr,
    settings: &Settings,
    meter: &Meter,
    arrived: &Counter,
) -> io::Result<()> {
    let segments = (PAYLOAD_MAX / settings.payload).clamp(1, state.max_gso_segments());
    let mut train = vec![0x5a; segments * settings.payload];
    let transmit_size = train.len() as u64;
    let cipher = Cipher::new();
    let (mut number, mut sent) = (0, 0);
    while !meter.is_stopped() {
        for packet in train.chunks_exact_mut(settings.payload) {
            number += 1;
            write_header(packet, number);
            if settings.sealed {
                cipher.seal(packet, number);
            }
        }
        // What is lost is given up for good.
        sent = wait_for_room(sent, arrived, meter);
        state.send(
            socket.into(),
            &Transmit {
                destination: to,
                ecn: None,
                contents: &train,
                segment_size: (segments > 1).then_some(settings.payload),
                src_ip: None,
            },
        )?;
        sent += transmit_size;
    }
    Ok(())
}

/// Spins until the window has room, and returns what is to count as sent from then on.
fn wait_for_room(sent: u64, arrived: &Counter, meter: &Meter) -> u64 {
    let mut since = None;
    while sent.saturating_sub(arrived.get()) > IN_FLIGHT && !meter.is_stopped() {
        let begin = *since.get_or_insert_with(now);
        for _ in 0..64 {
            std::hint::spin_loop();
        }
        if begin.elapsed() > STALLED {
            return arrived.get();
        }
    }
    sent
}

fn receive(
    socket: &UdpSocket,
    state: &UdpSocketState,
    sealed: bool,
    meter: &Meter,
    arrived: &Counter,
) -> io::Result<()> {
    let cipher = Cipher::new();
    let mut buffer = vec![0; 1 << 16];
    let mut meta = [RecvMeta::default()];
    while !meter.is_stopped() {
        match state.recv(
            socket.into(),
            &mut [IoSliceMut::new(&mut buffer)],
            &mut meta,
        ) {
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(e) => return Err(e),
        }
        let [RecvMeta { len, stride, .. }] = meta;
        let (mut bytes, mut packets, mut failures) = (0, 0, 0);
        for packet in buffer[..len].chunks_mut(stride.max(1)) {
            if sealed && !cipher.open(packet) {
                failures += 1;
                continue;
            }
            packets += 1;
            bytes += packet.len().saturating_sub(HEADER + TAG) as u64;
        }
        meter.bytes.add(bytes);
        meter.operations.add(packets);
        meter.failures.add(failures);
        arrived.add(len as u64);
    }
    Ok(())
}

fn write_header(packet: &mut [u8], number: u32) {
    packet[0] = 0x43; // a short header with a packet number of four bytes
    packet[1..PACKET_NUMBER_AT].fill(7);
    packet[PACKET_NUMBER_AT..HEADER].copy_from_slice(&number.to_be_bytes());
}

/// RFC 9001 §5.3 and §5.4 with fixed keys.
struct Cipher {
    packet: LessSafeKey,
    header: HeaderProtectionKey,
}

impl Cipher {
    fn new() -> Self {
        let packet = UnboundKey::new(&AES_128_GCM, &[9; 16]).expect("a key of 16 bytes");
        let header = HeaderProtectionKey::new(&quic::AES_128, &[3; 16]);
        Self {
            packet: LessSafeKey::new(packet),
            header: header.expect("a key of 16 bytes"),
        }
    }

    fn nonce(number: u32) -> Nonce {
        let mut nonce = [7; 12];
        for (byte, n) in nonce[8..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= n;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn protect(&self, packet: &mut [u8]) -> bool {
        let Some((header, body)) = packet.split_at_mut_checked(HEADER) else {
            return false;
        };
        let sample = body.get(..SAMPLE);
        let Some(mask) = sample.and_then(|sample| self.header.new_mask(sample).ok()) else {
            return false;
        };
        header[0] ^= mask[0] & 0x1f;
        for (byte, mask) in header[PACKET_NUMBER_AT..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        true
    }

    fn seal(&self, packet: &mut [u8], number: u32) {
        let (header, body) = packet.split_at_mut(HEADER);
        let (data, tag) = body.split_at_mut(body.len() - TAG);
        let (nonce, header) = (Self::nonce(number), Aad::from(&*header));
        let sealed = self.packet.seal_in_place_separate_tag(nonce, header, data);
        tag.copy_from_slice(sealed.expect("a packet is short enough").as_ref());
        self.protect(packet);
    }

    fn open(&self, packet: &mut [u8]) -> bool {
        if packet.len() < PAYLOAD_MIN || !self.protect(packet) {
            return false;
        }
        let (header, body) = packet.split_at_mut(HEADER);
        let number = [header[9], header[10], header[11], header[12]];
        let nonce = Self::nonce(u32::from_be_bytes(number));
        let opened = self.packet.open_in_place(nonce, Aad::from(&*header), body);
        opened.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(sealed: bool, payload: usize) -> Sample {
        let settings = Settings {
            sealed,
            payload,
            server_core: 0,
            client_core: 0,
            warm_up: Duration::ZERO,
            window: Duration::from_millis(300),
        };
        run(&settings).unwrap()
    }

    #[test]
    fn packets_arrive_and_open() {
        for (sealed, payload) in [(false, 1452), (true, 1452), (true, PAYLOAD_MAX)] {
            let sample = brief(sealed, payload);
            assert!(sample.operations > 0 && sample.bytes > 0, "{sample:?}");
            assert_eq!(sample.failures, 0);
        }
    }

    #[test]
    fn a_changed_packet_does_not_open() {
        let cipher = Cipher::new();
        let sealed = |change: usize| {
            let mut packet = vec![0x5a; 100];
            write_header(&mut packet, 5);
            cipher.seal(&mut packet, 5);
            if let Some(byte) = packet.get_mut(change) {
                *byte ^= 1;
            }
            packet
        };
        let mut packet = sealed(usize::MAX);
        assert!(packet[HEADER..] != [0x5a; 87] && cipher.open(&mut packet));
        assert!(packet[HEADER..84].iter().all(|byte| *byte == 0x5a));
        for change in [0, 1, 9, 12, 13, 50, 99] {
            assert!(!cipher.open(&mut sealed(change)), "byte {change}");
        }
        for len in 0..PAYLOAD_MIN {
            assert!(!cipher.open(&mut sealed(usize::MAX)[..len]));
        }
    }

    #[test]
    fn payloads_that_cannot_be_are_refused() {
        let mut settings = Settings {
            sealed: true,
            payload: PAYLOAD_MIN - 1,
            server_core: 0,
            client_core: 0,
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
        };
        assert!(run(&settings).is_err());
        settings.payload = PAYLOAD_MAX + 1;
        assert!(run(&settings).is_err());
    }
}
