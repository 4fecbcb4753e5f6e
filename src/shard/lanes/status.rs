//! What a server tells of itself, as JSON: the lanes of each shard and of all together, the
//! device's limits and how much of each is used, and every object with its owner.

use super::board::LaneStats;
use super::board::ShardStatus;
use super::host::Host;
use crate::rdma::registry::Object;
use crate::rdma::{Objects, Port, Usage};

/// At most so many objects are listed.
const LISTED: usize = 4096;

fn limit(usage: &Usage, near: bool) -> String {
    format!(
        "{{\"what\":\"{}\",\"used\":{},\"limit\":{},\"near\":{near}}}",
        usage.what, usage.used, usage.limit,
    )
}

fn limits<'a>(of: impl Iterator<Item = &'a Usage>) -> String {
    let each: Vec<String> = of.map(|u| limit(u, u.is_near())).collect();
    each.join(",")
}

fn counts(lanes: u64, s: &LaneStats) -> String {
    format!(
        "\"lanes\":{lanes},\"opened_rdma\":{},\"opened_quic\":{},\"refused\":{},\
         \"fallbacks\":{},\"returned\":{},\"ended\":{},\"misbehaved\":{}",
        s.opened_rdma, s.opened_quic, s.refused, s.fallbacks, s.returned, s.ended, s.misbehaved
    )
}

fn objects(o: &Objects) -> String {
    format!(
        "\"queue_pairs\":{},\"regions\":{},\"registered_bytes\":{},\"domains\":{},\
         \"completion_queues\":{},\"shared_receive_queues\":{}",
        o.queue_pairs,
        o.regions,
        o.registered,
        o.domains,
        o.completion_queues,
        o.shared_receive_queues
    )
}

/// A number, or `null`.
fn number(n: Option<u64>) -> String {
    n.map_or("null".to_owned(), |n| n.to_string())
}

/// A provider's name, in quotes; `null` without one.
fn provider(name: Option<&str>) -> String {
    name.map_or("null".to_owned(), |name| format!("\"{name}\""))
}

/// One shard. Limits that it shares with others are told of all together.
fn row(s: &ShardStatus, all: &[Object]) -> String {
    let listed = all.iter().filter(|o| o.shard == s.shard).count();
    let device = s.device.iter().filter(|_| !s.shared);
    format!(
        "{{\"shard\":{},{},\"provider\":{},\"usable\":{},{},\"rnr_naks_sent\":{},\
         \"objects\":{listed},\"limits\":[{}]}}",
        s.shard,
        counts(s.lanes, &s.stats),
        provider(s.provider.as_deref()),
        s.usable,
        objects(&s.objects),
        number(s.not_ready),
        limits(device.chain(&s.own))
    )
}

/// The sums of all shards.
#[derive(Default)]
struct Totals {
    lanes: u64,
    stats: LaneStats,
    objects: Objects,
    not_ready: Option<u64>,
    /// Each limit, and whether one shard is near its own.
    limits: Vec<(Usage, bool)>,
}

impl Totals {
    fn of(shards: &[ShardStatus]) -> Self {
        let mut all = Self::default();
        let mut device = false;
        for s in shards {
            all.lanes += s.lanes;
            all.stats.add(&s.stats);
            all.objects.add(&s.objects);
            let more = all.not_ready.zip(s.not_ready).map(|(a, b)| a + b);
            all.not_ready = more.or(all.not_ready).or(s.not_ready);
            // A device that all share is told once.
            if !(s.shared && std::mem::replace(&mut device, s.shared)) {
                s.device.iter().for_each(|u| all.limit(u));
            }
            s.own.iter().for_each(|u| all.limit(u));
        }
        all
    }

    fn limit(&mut self, usage: &Usage) {
        let near = usage.is_near();
        match self.limits.iter_mut().find(|(u, _)| u.what == usage.what) {
            Some((sum, any)) => {
                sum.used += usage.used;
                sum.limit = sum.limit.saturating_add(usage.limit);
                *any |= near;
            }
            None => self.limits.push((*usage, near)),
        }
    }
}

impl<P: Port> Host<P> {
    /// Every limit that clients come up against, with what is used: the device's, by all shards
    /// that share it, and this shard's own.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let mut all = self.port.as_ref().map(Port::usage).unwrap_or_default();
        all.extend(self.own_usage());
        all
    }

    pub(super) fn own_usage(&self) -> Vec<Usage> {
        let lanes = Usage {
            what: "lanes",
            used: self.sessions.len() as u64,
            limit: self.sessions.limit() as u64,
        };
        let completions = self.shared.as_ref().map(|shared| shared.usage());
        completions.into_iter().chain([lanes]).collect()
    }

    /// All shards as they last told, this one as it is.
    pub(super) fn status(&mut self) -> String {
        self.publish();
        let mut shards = self.config.board.shards();
        // What others use of a shared device does not wait for them to tell.
        if let Some(port) = self.port.as_ref().filter(|p| p.is_shared()) {
            for s in shards.iter_mut().filter(|s| s.shared) {
                s.device = port.usage();
            }
        }
        let all = self.config.registry.objects();
        let rows: Vec<String> = shards.iter().map(|s| row(s, &all)).collect();
        let mut totals = Totals::of(&shards);
        if let Some(port) = self.port.as_ref().filter(|p| p.is_shared()) {
            totals.not_ready = port.not_ready();
        }
        let listed = all.iter().take(LISTED).map(|o| {
            let (shard, owner, kind, detail) = (o.shard, o.owner, o.kind, o.detail);
            format!(
                "{{\"shard\":{shard},\"owner\":\"{owner}\",\"kind\":\"{kind:?}\",\
                 \"detail\":{detail}}}"
            )
        });
        let listed: Vec<String> = listed.collect();
        let limits: Vec<String> = totals.limits.iter().map(|(u, n)| limit(u, *n)).collect();
        let device = shards.iter().find_map(|s| s.provider.as_deref());
        let device = device.map_or("null".to_owned(), |name| {
            let usable = shards.iter().any(|s| s.usable);
            let name = provider(Some(name));
            let has = objects(&totals.objects);
            let naks = number(totals.not_ready);
            format!("{{\"provider\":{name},\"usable\":{usable},{has},\"rnr_naks_sent\":{naks}}}")
        });
        format!(
            "{{\"answered_by_shard\":{},{},\"device\":{device},\"limits\":[{}],\"shards\":[{}],\
             \"objects_total\":{},\"objects\":[{}]}}",
            self.shard,
            counts(totals.lanes, &totals.stats),
            limits.join(","),
            rows.join(","),
            all.len(),
            listed.join(",")
        )
    }
}
