//! The client: a connection for each batch of files, the later ones with the first one's session.

use crate::Outcome;
use crate::net::{self, Net};
use corelane_hq::{Case, ClientArgs, Url};
use quiche::{Config, Connection, ConnectionId, Error, RecvInfo};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

pub fn run(args: &ClientArgs) -> Outcome<()> {
    let mut config = net::config()?;
    let ca = args.ca.as_ref().ok_or("this client wants --ca")?;
    config.load_verify_locations_from_file(&ca.to_string_lossy())?;
    config.verify_peer(true);
    let first = args.urls.first().ok_or("no URL")?;
    let addr = first.resolve()?;
    // quiche wants to know its very address.
    let any: SocketAddr = match addr {
        SocketAddr::V4(_) => ([127, 0, 0, 1], 0).into(),
        SocketAddr::V6(_) => ([0u16, 0, 0, 0, 0, 0, 0, 1], 0).into(),
    };
    let mut net = Net::bind(args.bind.unwrap_or(any))?;
    let mut session = None;
    for urls in args.batches() {
        let resumes = matches!(args.case, Case::Resumption | Case::ZeroRtt);
        let saved = session.take().filter(|_| resumes);
        let mut fetch = Fetch::begin(&mut net, &mut config, addr, urls, saved)?;
        fetch.early = args.case == Case::ZeroRtt;
        session = fetch.run(&mut net, &args.out)?;
    }
    Ok(())
}

struct Fetch<'a> {
    quic: Connection,
    early: bool,
    waiting: Vec<&'a Url>,
    open: HashMap<u64, (&'a Url, Vec<u8>)>,
    /// The rest of a request that was written in part.
    partial: Option<(u64, Vec<u8>)>,
    next: u64,
}

impl<'a> Fetch<'a> {
    fn begin(
        net: &mut Net,
        config: &mut Config,
        addr: SocketAddr,
        urls: &'a [Url],
        session: Option<Vec<u8>>,
    ) -> Outcome<Self> {
        let id = net::random()?;
        let id = ConnectionId::from_ref(&id);
        let name = urls.first().map(Url::server_name);
        let mut quic = quiche::connect(name, &id, net.local, addr, config)?;
        net::log_keys(&mut quic);
        if let Some(session) = session {
            quic.set_session(&session)?;
        }
        Ok(Self {
            quic,
            early: false,
            waiting: urls.iter().rev().collect(),
            open: HashMap::new(),
            partial: None,
            next: 0,
        })
    }

    /// Until every file is there and the connection is closed; returns the session.
    fn run(mut self, net: &mut Net, out: &Path) -> Outcome<Option<Vec<u8>>> {
        let mut buffer = vec![0; 65_535];
        let mut session = None;
        // The first flight makes the keys for early data.
        net.collect(&mut self.quic)?;
        loop {
            if self.quic.is_established() || (self.early && self.quic.is_in_early_data()) {
                self.ask()?;
                self.read(&mut buffer, out)?;
            }
            if self.waiting.is_empty() && self.open.is_empty() && !self.quic.is_closed() {
                session = self.quic.session().map(<[u8]>::to_vec).or(session);
                let _ = self.quic.close(true, 0, b"");
            }
            net::issue_ids(&mut self.quic);
            while self.quic.path_event_next().is_some() {}
            net.collect(&mut self.quic)?;
            net.flush();
            let told = self.quic.local_error().is_some() && net.idle();
            if told && self.open.is_empty() && self.waiting.is_empty() {
                return Ok(session);
            }
            if self.quic.is_closed() {
                let why = (self.quic.peer_error(), self.quic.local_error());
                return Err(format!("the connection ended: {why:?}").into());
            }
            match net.wait(&mut buffer, self.quic.timeout())? {
                Some((n, from)) => {
                    let to = net.local;
                    match self.quic.recv(&mut buffer[..n], RecvInfo { from, to }) {
                        Ok(_) | Err(Error::Done) => {}
                        Err(why) => eprintln!("receiving: {why}"),
                    }
                }
                None => self.quic.on_timeout(),
            }
        }
    }

    fn ask(&mut self) -> Outcome<()> {
        loop {
            let (id, data) = match self.partial.take() {
                Some(rest) => rest,
                None => {
                    let Some(url) = self.waiting.pop() else {
                        return Ok(());
                    };
                    let id = self.next;
                    self.next += 4;
                    self.open.insert(id, (url, Vec::new()));
                    (id, corelane_hq::request(url))
                }
            };
            let sent = match self.quic.stream_send(id, &data, true) {
                Ok(n) => n,
                Err(Error::StreamLimit | Error::Done) => 0,
                Err(why) => return Err(why.into()),
            };
            if sent < data.len() {
                self.partial = Some((id, data[sent..].to_vec()));
                return Ok(());
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8], out: &Path) -> Outcome<()> {
        let readable: Vec<u64> = self.quic.readable().collect();
        for id in readable {
            loop {
                match self.quic.stream_recv(id, buffer) {
                    Ok((n, fin)) => {
                        let Some((_, data)) = self.open.get_mut(&id) else {
                            break;
                        };
                        data.extend_from_slice(&buffer[..n]);
                        if fin {
                            if let Some((url, data)) = self.open.remove(&id) {
                                corelane_hq::save(out, url, &data)?;
                            }
                            break;
                        }
                    }
                    Err(Error::Done) => break,
                    Err(why) => return Err(why.into()),
                }
            }
        }
        Ok(())
    }
}
