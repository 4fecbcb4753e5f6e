//! The server: connections by ID, a file for each stream.

use crate::Outcome;
use crate::net::{self, Net};
use corelane_hq::{ServerArgs, Wanted};
use quiche::{Config, Connection, ConnectionId, Error, Header, RecvInfo, Shutdown, Type};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

/// What is left of an answer.
struct Answer {
    data: Vec<u8>,
    sent: usize,
}

struct Peer {
    quic: Connection,
    requests: HashMap<u64, Vec<u8>>,
    answers: HashMap<u64, Answer>,
}

struct Server {
    config: Config,
    net: Net,
    retry: bool,
    peers: HashMap<usize, Peer>,
    next: usize,
    ids: HashMap<Vec<u8>, usize>,
    /// Tokens that were given out: to whom, and the first ID that they chose.
    tokens: HashMap<Vec<u8>, (SocketAddr, Vec<u8>)>,
}

pub fn run(args: &ServerArgs) -> Outcome<()> {
    let mut config = net::config()?;
    config.load_cert_chain_from_pem_file(&args.cert.to_string_lossy())?;
    config.load_priv_key_from_pem_file(&args.key.to_string_lossy())?;
    let net = Net::bind(args.listen)?;
    corelane_hq::announce(net.local);
    let mut server = Server {
        config,
        net,
        retry: args.retry,
        peers: HashMap::new(),
        next: 0,
        ids: HashMap::new(),
        tokens: HashMap::new(),
    };
    let mut buffer = vec![0; 65_535];
    loop {
        let timeout = server.peers.values().filter_map(|p| p.quic.timeout()).min();
        match server.net.wait(&mut buffer, timeout)? {
            Some((n, from)) => server.datagram(&mut buffer[..n], from)?,
            None => server.peers.values_mut().for_each(|p| p.quic.on_timeout()),
        }
        for (n, peer) in &mut server.peers {
            peer.serve(&args.root);
            for id in net::issue_ids(&mut peer.quic) {
                server.ids.insert(id, *n);
            }
            while peer.quic.path_event_next().is_some() {}
            server.net.collect(&mut peer.quic)?;
        }
        server.net.flush();
        server.peers.retain(|_, p| !p.quic.is_closed());
        let peers = &server.peers;
        server.ids.retain(|_, n| peers.contains_key(n));
    }
}

impl Server {
    fn datagram(&mut self, data: &mut [u8], from: SocketAddr) -> Outcome<()> {
        let Ok(header) = Header::from_slice(data, 16) else {
            return Ok(());
        };
        let known = self.ids.get(&header.dcid.to_vec()).copied();
        let n = match known {
            Some(n) => n,
            None if header.ty == Type::Initial => match self.accept(&header, from)? {
                Some(n) => n,
                None => return Ok(()),
            },
            None => return Ok(()),
        };
        if let Some(peer) = self.peers.get_mut(&n) {
            let to = self.net.local;
            if let Err(why) = peer.quic.recv(data, RecvInfo { from, to }) {
                eprintln!("{from}: {why}");
            }
        }
        Ok(())
    }

    fn accept(&mut self, header: &Header<'_>, from: SocketAddr) -> Outcome<Option<usize>> {
        if !quiche::version_is_supported(header.version) {
            let mut out = [0; 1200];
            let n = quiche::negotiate_version(&header.scid, &header.dcid, &mut out)?;
            self.net.send(from, &out[..n]);
            return Ok(None);
        }
        let id = net::random()?;
        let token = header.token.clone().unwrap_or_default();
        let mut origin = None;
        if self.retry {
            if token.is_empty() {
                let new = net::random()?.to_vec();
                let mut out = [0; 1200];
                let n = quiche::retry(
                    &header.scid,
                    &header.dcid,
                    &ConnectionId::from_ref(&id),
                    &new,
                    header.version,
                    &mut out,
                )?;
                self.tokens.insert(new, (from, header.dcid.to_vec()));
                self.net.send(from, &out[..n]);
                return Ok(None);
            }
            match self.tokens.get(&token) {
                Some((addr, id)) if *addr == from => origin = Some(id.clone()),
                _ => return Ok(None),
            }
        }
        // After a Retry the ID is the one that the Retry chose.
        let id = if origin.is_some() {
            header.dcid.to_vec()
        } else {
            id.to_vec()
        };
        let origin = origin.map(ConnectionId::from_vec);
        let mut quic = quiche::accept(
            &ConnectionId::from_ref(&id),
            origin.as_ref(),
            self.net.local,
            from,
            &mut self.config,
        )?;
        net::log_keys(&mut quic);
        let n = self.next;
        self.next += 1;
        self.ids.insert(id, n);
        self.ids.insert(header.dcid.to_vec(), n);
        self.peers.insert(
            n,
            Peer {
                quic,
                requests: HashMap::new(),
                answers: HashMap::new(),
            },
        );
        Ok(Some(n))
    }
}

impl Peer {
    fn serve(&mut self, root: &Path) {
        if !self.quic.is_established() && !self.quic.is_in_early_data() {
            return;
        }
        let mut buffer = [0; 4096];
        let readable: Vec<u64> = self.quic.readable().collect();
        for id in readable {
            while let Ok((n, fin)) = self.quic.stream_recv(id, &mut buffer) {
                let request = self.requests.entry(id).or_default();
                request.extend_from_slice(&buffer[..n]);
                if !fin {
                    continue;
                }
                match corelane_hq::read(root, request, true) {
                    Wanted::File(path) => {
                        let data = std::fs::read(path).unwrap_or_default();
                        self.answers.insert(id, Answer { data, sent: 0 });
                    }
                    _ => {
                        let _ = self.quic.stream_shutdown(id, Shutdown::Write, 1);
                    }
                }
                self.requests.remove(&id);
                break;
            }
        }
        let quic = &mut self.quic;
        self.answers.retain(|id, answer| {
            match quic.stream_send(*id, &answer.data[answer.sent..], true) {
                Ok(n) => answer.sent += n,
                Err(Error::Done) => {}
                Err(_) => return false,
            }
            answer.sent < answer.data.len()
        });
    }
}
