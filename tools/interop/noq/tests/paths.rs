//! Several paths of a connection between corelane and noq, each as client and as server, over real
//! sockets and a relay with a link for each path. What a case is about is asked of both sides.

use bytes::Bytes;
use corelane::api::PathStatus::{self, Available, Backup};
use corelane_interop_noq::{Endpoint, Fault, Identity, Kind, Links, News, Peer};
use std::time::Duration;

/// The limit of both sides: the first identifiers are 0 to 3.
const PATHS: u32 = 4;
/// Far longer than any case takes; who is stuck by then stays so.
const PATIENCE: Duration = Duration::from_secs(120);
/// What shows that a path is in use, in bytes.
const MUCH: u64 = 100_000;

struct World {
    ends: (Endpoint, Endpoint),
    links: Links,
    client: Peer,
    server: Peer,
}

/// Says what a path is to be used for, and waits until the other side has heard it.
async fn say(sayer: &Peer, hearer: &Peer, id: u32, status: PathStatus) -> Result<(), Fault> {
    sayer.set_status(id, status).await?;
    let last = || {
        let news = hearer.news().into_iter().rev();
        let mut of = news.filter_map(|n| match n {
            News::Status(of, status) if of == id => Some(status),
            _ => None,
        });
        of.next().unwrap_or(Available)
    };
    while last() != status {
        transfer(sayer, hearer, 1000).await?;
    }
    Ok(())
}

/// Bytes that depend on where they are.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..len as u64).map(|i| byte(i + seed)).collect()
}

async fn transfer(from: &Peer, to: &Peer, len: usize) -> Result<(), Fault> {
    let data = pattern(len, len as u64);
    let (sent, got) = tokio::join!(from.send(&data), to.receive());
    sent?;
    assert!(got? == data, "{len} bytes came as they left");
    Ok(())
}

impl World {
    async fn new(client: Kind, paths: u32, loss: f64) -> Result<Self, Fault> {
        let identity = Identity::make()?;
        let server = Endpoint::server(client.other(), &identity, paths)?;
        let links = Links::start(server.addr()?, loss)?;
        let ends = (Endpoint::client(client, &identity, paths)?, server);
        let (client, server) = tokio::join!(ends.0.connect(links.addr()), ends.1.accept());
        Ok(Self {
            ends,
            links,
            client: client?,
            server: server?,
        })
    }

    /// A connection with two paths, as both sides know.
    async fn with_two_paths(client: Kind) -> Result<Self, Fault> {
        let world = Self::new(client, PATHS, 0.0).await?;
        let id = world.open(Available).await?;
        assert_eq!(id, 1);
        Ok(world)
    }

    /// Opens a path from the client's second address, and waits for the server to know.
    async fn open(&self, status: PathStatus) -> Result<u32, Fault> {
        let remote = self.links.addr();
        let id = self.client.open_path(1, remote, status).await?;
        let gone = |n| matches!(n, News::Gone { id: of, .. } if of == id);
        self.server
            .wait_for(|n| n == News::Opened(id) || gone(n))
            .await;
        match self.server.news().contains(&News::Opened(id)) {
            true => Ok(id),
            false => Err(self.told(&format!("path {id} came to nothing"))),
        }
    }

    /// What is wrong, and what both sides have heard.
    fn told(&self, wrong: &str) -> Fault {
        let [client, server] = [&self.client, &self.server].map(Peer::news);
        format!("{wrong}: the client heard {client:?}, the server {server:?}").into()
    }

    /// Both sides and the other of each.
    fn sides(&self) -> [(&Peer, &Peer); 2] {
        [(&self.client, &self.server), (&self.server, &self.client)]
    }

    /// The side that is corelane's.
    fn ours(&self) -> &Peer {
        match self.client.kind() {
            Kind::Corelane => &self.client,
            Kind::Noq => &self.server,
        }
    }

    /// So many bytes each way.
    async fn exchange(&self, len: usize) -> Result<(), Fault> {
        tokio::try_join!(
            transfer(&self.client, &self.server, len),
            transfer(&self.server, &self.client, len)
        )?;
        Ok(())
    }

    /// Sends both ways until each of the two paths has carried much, each way, as both sides see
    /// it and the relay too.
    async fn use_both(&self, ids: [u32; 2]) -> Result<(), Fault> {
        let before = self.seen(ids).await?;
        loop {
            self.exchange(1_000_000).await?;
            let now = self.seen(ids).await?;
            if now.iter().zip(&before).all(|(n, b)| n - b > MUCH) {
                return Ok(());
            }
        }
    }

    /// Bytes of the paths, in the words of each who counts.
    async fn seen(&self, ids: [u32; 2]) -> Result<Vec<u64>, Fault> {
        let mut all = Vec::new();
        for (peer, _) in self.sides() {
            for id in ids {
                let view = peer.view(id).await?.ok_or("the path is there")?;
                all.extend([view.sent, view.received]);
            }
        }
        let carried = self.links.bytes().into_iter();
        all.extend(carried.flat_map(|(up, down)| [up, down]));
        Ok(all)
    }
}

/// Plays a case to its end, which the connection has to live to see.
fn play<F>(client: Kind, case: impl FnOnce(Kind) -> F)
where
    F: Future<Output = Result<World, Fault>>,
{
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let case = tokio::time::timeout(PATIENCE, case(client)).await;
        let world = case.expect("stuck").expect("played");
        for (peer, _) in world.sides() {
            assert_eq!(peer.close_reason(), None, "{:?}", peer.kind());
        }
        let stats = world.ours().stats().await.expect("alive");
        assert_eq!(stats.packets_undecryptable, 0);
        world.client.close();
    });
}

macro_rules! cases {
    ($($(#[$doc:meta])* $case:ident as $served:ident, $serving:ident;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $served() {
            play(Kind::Corelane, $case);
        }

        $(#[$doc])*
        #[test]
        fn $serving() {
            play(Kind::Noq, $case);
        }
    )*};
}

cases! {
    open as noq_serves_two_paths, noq_opens_a_path;
    loss as noq_serves_two_lossy_paths, noq_opens_a_lossy_path;
    status as noq_serves_backups, noq_has_backups;
    abandon as noq_serves_who_abandons, noq_abandons;
    reopen as noq_serves_beyond_the_first_identifiers, noq_opens_beyond_the_first_identifiers;
    keys as noq_serves_who_updates_keys, noq_updates_keys;
    rebind as noq_serves_behind_a_nat, noq_is_behind_a_nat;
    datagrams as noq_serves_datagrams, noq_sends_datagrams;
    early as noq_takes_early_data, noq_sends_early_data;
    single as noq_serves_one_path, noq_has_one_path;
}

/// A second path opens, and both sides send on both.
async fn open(client: Kind) -> Result<World, Fault> {
    let world = World::with_two_paths(client).await?;
    assert!(world.client.is_multipath() && world.server.is_multipath());
    assert!(world.client.news().contains(&News::Opened(1)));
    world.use_both([0, 1]).await?;
    Ok(world)
}

/// The same where each link loses one datagram in fifty.
async fn loss(client: Kind) -> Result<World, Fault> {
    let world = World::new(client, PATHS, 0.02).await?;
    assert_eq!(world.open(Available).await?, 1);
    world.use_both([0, 1]).await?;
    Ok(world)
}

/// Either side makes either path a backup: the other hears it, and what this one sends goes by the
/// other path. So does what corelane sends in return; noq leaves that to its application.
async fn status(client: Kind) -> Result<World, Fault> {
    const LEN: usize = 1_000_000;
    let world = World::with_two_paths(client).await?;
    world.use_both([0, 1]).await?;
    for (sayer, hearer) in world.sides() {
        for (spare, used) in [(0, 1), (1, 0)] {
            say(sayer, hearer, used, Available).await?;
            say(sayer, hearer, spare, Backup).await?;
            let ours = sayer.view(spare).await?.ok_or("the path is there")?;
            assert_eq!(ours.status, Backup);
            let mut senders = vec![(sayer, hearer)];
            if hearer.kind() == Kind::Corelane {
                senders.push((hearer, sayer));
            }
            for (from, to) in senders {
                let before = [from.view(spare).await?, from.view(used).await?];
                transfer(from, to, LEN).await?;
                let after = [from.view(spare).await?, from.view(used).await?];
                let sent = |n: usize| Some(after[n]?.sent - before[n]?.sent);
                // A backup still has its probes.
                assert!(sent(0) < Some(MUCH), "{:?} sent {:?}", from.kind(), sent(0));
                assert!(sent(1) > Some(LEN as u64), "{:?}", sent(1));
            }
        }
        say(sayer, hearer, 1, Available).await?;
        world.use_both([0, 1]).await?;
    }
    Ok(world)
}

/// Either side abandons a path, the first one too, and what is on its way gets there all the same.
async fn abandon(client: Kind) -> Result<World, Fault> {
    let world = World::with_two_paths(client).await?;
    let mut ids = [0, 1];
    for (n, (closer, other)) in world.sides().into_iter().chain(world.sides()).enumerate() {
        world.use_both(ids).await?;
        let gone = ids[n % 2];
        let close = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            closer.close_path(gone).await
        };
        tokio::try_join!(world.exchange(1_000_000), close)?;
        let by = |who: bool| News::Gone {
            id: gone,
            by_peer: who,
        };
        other.wait_for(|n| n == by(true)).await;
        closer.wait_for(|n| n == by(false)).await;
        for (peer, _) in world.sides() {
            // noq shows it until it is forgotten.
            while peer.view(gone).await?.is_some() {
                world.exchange(10_000).await?;
            }
        }
        let local = n % 2;
        let remote = world.links.addr();
        let id = world.client.open_path(local, remote, Available).await?;
        world.server.wait_for(|n| n == News::Opened(id)).await;
        ids[n % 2] = id;
    }
    world.use_both(ids).await?;
    Ok(world)
}

/// Identifiers are never used again, so that both sides have to raise MAX_PATH_ID.
async fn reopen(client: Kind) -> Result<World, Fault> {
    let world = World::with_two_paths(client).await?;
    for n in 1..3 * PATHS {
        let (closer, other) = world.sides()[n as usize % 2];
        closer.close_path(n).await?;
        let gone = |by_peer| News::Gone { id: n, by_peer };
        other
            .wait_for(|news| news == gone(true) || news == gone(false))
            .await;
        if !other.news().contains(&gone(true)) {
            return Err(world.told(&format!("path {n} was given up by itself")));
        }
        assert_eq!(world.open(Available).await?, n + 1);
        world.exchange(10_000).await?;
    }
    world.use_both([0, 3 * PATHS]).await?;
    Ok(world)
}

/// Both sides move to new keys while both paths carry data.
async fn keys(client: Kind) -> Result<World, Fault> {
    let world = World::with_two_paths(client).await?;
    world.use_both([0, 1]).await?;
    let before = world.ours().stats().await?.key_updates;
    for (peer, _) in world.sides().into_iter().cycle().take(6) {
        let update = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let from = world.ours().stats().await?.key_updates;
            while world.ours().stats().await?.key_updates == from {
                peer.update_keys().await?;
                transfer(&world.client, &world.server, 1000).await?;
            }
            Ok(())
        };
        tokio::try_join!(transfer(&world.server, &world.client, 1_000_000), update)?;
    }
    world.use_both([0, 1]).await?;
    assert!(world.ours().stats().await?.key_updates >= before + 6);
    Ok(world)
}

/// A NAT changes the client's port on one path while both carry data: the server asks there anew
/// and follows, and the other path is where it was.
async fn rebind(client: Kind) -> Result<World, Fault> {
    let world = World::with_two_paths(client).await?;
    for (link, other) in [(1, 0), (1, 0), (0, 1)] {
        world.use_both([0, 1]).await?;
        let remote = async |id| world.server.view(id).await.map(|v| v.map(|v| v.remote));
        let before = (remote(link).await?, remote(other).await?);
        let nat = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.links.rebind(link as usize);
            Ok(())
        };
        tokio::try_join!(world.exchange(1_000_000), nat)?;
        while remote(link).await? == before.0 {
            world.exchange(100_000).await?;
        }
        world.use_both([0, 1]).await?;
        assert_eq!(remote(other).await?, before.1);
    }
    for (peer, _) in world.sides() {
        let gone = |n: &News| matches!(n, News::Gone { .. });
        assert!(!peer.news().iter().any(gone), "{:?}", peer.news());
    }
    Ok(world)
}

/// Datagrams by each of the paths, each way.
async fn datagrams(client: Kind) -> Result<World, Fault> {
    const COUNT: usize = 50;
    let world = World::with_two_paths(client).await?;
    world.use_both([0, 1]).await?;
    for (from, to) in world.sides() {
        for (id, other) in [(0, 1), (1, 0)] {
            say(from, to, id, Available).await?;
            say(from, to, other, Backup).await?;
            let before = (from.view(id).await?, to.view(id).await?);
            let frames = [from.frames(id), to.frames(id)];
            let datagram = |n: usize| Bytes::from(pattern(1000, n as u64));
            for n in 0..COUNT {
                from.send_datagram(datagram(n)).await?;
            }
            let mut missing: Vec<_> = (0..COUNT).map(datagram).collect();
            while !missing.is_empty() {
                let got = to.read_datagram().await?;
                let at = missing.iter().position(|d| *d == got);
                missing.swap_remove(at.ok_or("a datagram came twice or changed")?);
            }
            let after = (from.view(id).await?, to.view(id).await?);
            let enough = Some(1000 * COUNT as u64);
            let grown = |a: Option<u64>, b: Option<u64>| Some(a? - b?);
            let sent = grown(after.0.map(|v| v.sent), before.0.map(|v| v.sent));
            let received = grown(after.1.map(|v| v.received), before.1.map(|v| v.received));
            assert!(sent >= enough && received >= enough, "path {id}");
            // noq counts frames as well.
            for (n, peer) in [from, to].into_iter().enumerate() {
                let Some((now, then)) = peer.frames(id).zip(frames[n]) else {
                    continue;
                };
                let of = [
                    now.0.datagram - then.0.datagram,
                    now.1.datagram - then.1.datagram,
                ];
                assert_eq!(of[n], COUNT as u64, "path {id}");
            }
        }
        say(from, to, 0, Available).await?;
    }
    world.use_both([0, 1]).await?;
    Ok(world)
}

/// A resumed connection begins with early data; several paths are no matter of the ticket
/// (multipath §2.1), and come when the handshake is complete.
async fn early(client: Kind) -> Result<World, Fault> {
    let mut world = World::new(client, PATHS, 0.0).await?;
    loop {
        world.exchange(1000).await?;
        let (client, server) = &world.ends;
        let begin = async {
            let (connection, accepted) = client.connect_early(world.links.addr()).await?;
            connection.send(b"early").await?;
            Ok::<_, Fault>((connection, accepted.await))
        };
        let take = async {
            let connection = server.accept().await?;
            assert_eq!(connection.receive().await?, "early");
            Ok(connection)
        };
        let ((client, accepted), server) = tokio::try_join!(begin, take)?;
        world.client.close();
        (world.client, world.server) = (client, server);
        let stats = world.ours().stats().await?;
        // The ticket may come later than the data did, and on a busy machine the handshake may be
        // faster than this thread.
        if stats.zero_rtt_packets_sent + stats.zero_rtt_packets_received > 0 {
            assert!(accepted);
            break;
        }
    }
    assert_eq!(world.open(Available).await?, 1);
    assert!(world.client.is_multipath() && world.server.is_multipath());
    world.use_both([0, 1]).await?;
    Ok(world)
}

/// We would have several paths, and noq has one (multipath §2).
async fn single(client: Kind) -> Result<World, Fault> {
    let identity = Identity::make()?;
    let paths = |kind| if kind == Kind::Noq { 1 } else { PATHS };
    let server = Endpoint::server(client.other(), &identity, paths(client.other()))?;
    let links = Links::start(server.addr()?, 0.0)?;
    let ends = (Endpoint::client(client, &identity, paths(client))?, server);
    let (client, server) = tokio::join!(ends.0.connect(links.addr()), ends.1.accept());
    let world = World {
        ends,
        links,
        client: client?,
        server: server?,
    };
    world.exchange(1_000_000).await?;
    assert!(!world.client.is_multipath() && !world.server.is_multipath());
    assert_eq!(world.links.bytes()[1], (0, 0));
    Ok(world)
}
