//! A socket, the datagrams that wait for their time, and what all connections are configured with.

use crate::Outcome;
use quiche::{Config, Connection, ConnectionId};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Largest UDP payload.
const DATAGRAM: usize = 1350;
const PATIENCE: Duration = Duration::from_secs(120);
/// How long to wait when nothing is due.
const IDLE: Duration = Duration::from_millis(500);

pub fn config() -> quiche::Result<Config> {
    let mut config = Config::new(quiche::PROTOCOL_VERSION)?;
    config.set_application_protos(&[corelane_hq::ALPN])?;
    config.set_max_idle_timeout(PATIENCE.as_millis() as u64);
    config.set_max_recv_udp_payload_size(1472);
    config.set_max_send_udp_payload_size(DATAGRAM);
    config.set_initial_max_data(2 << 20);
    config.set_initial_max_stream_data_bidi_local(1 << 20);
    config.set_initial_max_stream_data_bidi_remote(1 << 20);
    config.set_initial_max_streams_bidi(100);
    config.set_active_connection_id_limit(4);
    config.enable_early_data();
    config.log_keys();
    Ok(config)
}

pub fn random() -> Outcome<[u8; 16]> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "no randomness")?;
    Ok(bytes)
}

/// Logs a connection's secrets, if the environment says where.
pub fn log_keys(connection: &mut Connection) {
    if let Some(path) = std::env::var_os("SSLKEYLOGFILE") {
        if let Ok(file) = OpenOptions::new().create(true).append(true).open(path) {
            connection.set_keylog(Box::new(file));
        }
    }
}

/// Gives the peer connection IDs to move with; returns those that are new.
pub fn issue_ids(connection: &mut Connection) -> Vec<Vec<u8>> {
    let mut new = Vec::new();
    while connection.scids_left() > 0 {
        let (Ok(id), Ok(token)) = (random(), random()) else {
            break;
        };
        let token = u128::from_be_bytes(token);
        if connection
            .new_scid(&ConnectionId::from_ref(&id), token, false)
            .is_err()
        {
            break;
        }
        new.push(id.to_vec());
    }
    new
}

/// A socket and what waits to be sent on it.
pub struct Net {
    socket: UdpSocket,
    pub local: SocketAddr,
    waiting: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
}

impl Net {
    pub fn bind(addr: SocketAddr) -> Outcome<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        let _ = socket.set_recv_buffer_size(1 << 20);
        socket.bind(&addr.into())?;
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            local,
            waiting: VecDeque::new(),
        })
    }

    /// Takes everything that a connection wants to send, each at the time of its pacer.
    pub fn collect(&mut self, connection: &mut Connection) -> Outcome<()> {
        let mut out = [0; DATAGRAM];
        loop {
            match connection.send(&mut out) {
                Ok((n, info)) => {
                    let place = self.waiting.partition_point(|(at, ..)| *at <= info.at);
                    self.waiting
                        .insert(place, (info.at, info.to, out[..n].to_vec()));
                }
                Err(quiche::Error::Done) => return Ok(()),
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Sends what is due.
    pub fn flush(&mut self) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|(at, ..)| *at <= now) {
            if let Some((_, to, data)) = self.waiting.pop_front() {
                // What does not go is lost.
                let _ = self.socket.send_to(&data, to);
            }
        }
    }

    /// Sends one datagram now.
    pub fn send(&mut self, to: SocketAddr, data: &[u8]) {
        let _ = self.socket.send_to(data, to);
    }

    pub fn idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for a datagram until `timeout` or until something is to be sent.
    pub fn wait(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Outcome<Option<(usize, SocketAddr)>> {
        let next = self
            .waiting
            .front()
            .map(|(at, ..)| at.saturating_duration_since(Instant::now()));
        let wait = [timeout, next, Some(IDLE)].into_iter().flatten().min();
        let wait = wait.unwrap_or(IDLE).max(Duration::from_micros(1));
        self.socket.set_read_timeout(Some(wait))?;
        match self.socket.recv_from(buffer) {
            Ok(got) => Ok(Some(got)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e.into()),
        }
    }
}
