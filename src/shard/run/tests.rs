//! Which turns of a shard that never sleeps are whole ones.

use super::GLANCES;
use crate::base::{RecvMeta, Rng, Timestamp, limits};
use crate::conn::{ConnId, Endpoint, EndpointConfig, Event};
use crate::io::{Backend, Choice, IoConfig};
use crate::shard::mailbox::{CommandSender, Mailbox};
use crate::shard::steer::CidCodec;
use crate::shard::{CodecCids, Context, Shard, ShardApp};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

const STEP: Duration = Duration::from_micros(1);

#[derive(Default)]
struct App {
    polls: bool,
    wants: bool,
    turns: u32,
    commands: u32,
    trains: u32,
    again: Option<Timestamp>,
    socket: Option<UdpSocket>,
}

impl ShardApp for App {
    type Command = ();

    fn on_event(&mut self, _: &mut Context<'_>, _: ConnId, _: Event) {}

    fn on_command(&mut self, _: &mut Context<'_>, (): ()) {
        self.commands += 1;
    }

    fn on_own_train(&mut self, _: Timestamp, _: &RecvMeta, _: &mut [u8]) {
        self.trains += 1;
    }

    fn wants_turn(&self) -> bool {
        self.wants
    }

    fn polls(&self) -> bool {
        self.polls
    }

    fn on_turn(&mut self, ctx: &mut Context<'_>) -> Option<Timestamp> {
        self.turns += 1;
        self.wants = false;
        if let Some(socket) = self.socket.take() {
            ctx.add_own_socket(socket).unwrap();
        }
        self.again
    }
}

struct Rig {
    shard: Shard<App>,
    now: Timestamp,
    addr: SocketAddr,
    sender: CommandSender<()>,
}

impl Rig {
    /// A shard that never sleeps, after a turn in which there was nothing to do.
    fn new(polls: bool) -> Self {
        let now = Timestamp::from_nanos(1);
        let mut rng = Rng::from_u64(1);
        let codec = CidCodec::new(rng.next_u64(), limits::DEFAULT_CID_LEN, 0, 1, None);
        let codec = Arc::new(codec.unwrap());
        let mut config = EndpointConfig::new(rng.array());
        config.cids = Box::new(CodecCids(codec.clone()));
        let endpoint = Endpoint::new(config).unwrap();
        let backend = Backend::open(Choice::Mmsg, &IoConfig::default()).unwrap();
        let mailbox = Mailbox::build(1).remove(0);
        let sender = mailbox.command_sender(|| {});
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = socket.local_addr().unwrap();
        let app = App {
            polls,
            socket: Some(socket),
            ..App::default()
        };
        let wake = Box::new(|_| {});
        let mut shard = Shard::new(now, 0, backend, endpoint, codec, mailbox, wake, app);
        shard.never_sleeps();
        let mut rig = Self {
            shard,
            now,
            addr,
            sender,
        };
        rig.turn();
        assert_eq!(rig.turns(), 1);
        rig
    }

    fn turn(&mut self) {
        self.now += STEP;
        self.shard.run_once(self.now).unwrap();
    }

    /// Whole turns so far.
    fn turns(&self) -> u32 {
        self.shard.app().turns
    }
}

#[test]
fn with_nothing_to_do_few_turns_are_whole() {
    let mut rig = Rig::new(false);
    for whole in 1..5 {
        for _ in 0..GLANCES {
            rig.turn();
            assert_eq!(rig.turns(), whole);
        }
        rig.turn();
        assert_eq!(rig.turns(), whole + 1);
    }
}

#[test]
fn an_application_that_looks_for_itself_has_every_turn() {
    let mut rig = Rig::new(true);
    for n in 2..20 {
        rig.turn();
        assert_eq!(rig.turns(), n);
    }
}

#[test]
fn what_there_is_to_do_is_done_at_once() {
    let mut rig = Rig::new(false);
    // Something arrived.
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    peer.send_to(b"hello", rig.addr).unwrap();
    while rig.shard.app().trains == 0 {
        // Sockets that are silent are looked at in some turns only.
        rig.turn();
    }
    let turns = rig.turns();
    rig.turn();
    assert_eq!(rig.turns(), turns + 1, "the turn after one that worked");
    // A command.
    rig.turn();
    assert_eq!(rig.turns(), turns + 1);
    assert!(rig.sender.send(()).is_ok());
    rig.turn();
    assert_eq!((rig.shard.app().commands, rig.turns()), (1, turns + 2));
    // The application wants a turn.
    rig.turn();
    rig.turn();
    let turns = rig.turns();
    let due = rig.now + 5 * STEP;
    rig.shard.app_mut().again = Some(due);
    rig.shard.app_mut().wants = true;
    rig.turn();
    assert_eq!(rig.turns(), turns + 1);
    // A time has come, before as many turns as may only look.
    while rig.now < due {
        assert_eq!(rig.turns(), turns + 1);
        rig.turn();
    }
    rig.turn();
    rig.turn();
    assert!(rig.turns() > turns + 1, "a deadline is not glanced over");
}
