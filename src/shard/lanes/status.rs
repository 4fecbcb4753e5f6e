//! What a server tells of itself, as JSON: its lanes, its device's limits and how much of each is
//! used, and every object with its owner.

use super::host::Host;
use crate::rdma::{Port, Usage};

/// At most so many objects are listed.
const LISTED: usize = 4096;

fn limit(usage: &Usage) -> String {
    format!(
        "{{\"what\":\"{}\",\"used\":{},\"limit\":{},\"near\":{}}}",
        usage.what,
        usage.used,
        usage.limit,
        usage.is_near()
    )
}

impl<P: Port> Host<P> {
    /// Every limit that clients come up against, with what is used: the device's, by all shards
    /// that share it, and this shard's own.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let mut all = self.port.as_ref().map(Port::usage).unwrap_or_default();
        all.extend(self.shared.as_ref().map(|shared| shared.usage()));
        all.push(Usage {
            what: "lanes",
            used: self.sessions.len() as u64,
            limit: self.sessions.limit() as u64,
        });
        all
    }

    pub(super) fn status(&self) -> String {
        let mut objects = self.config.registry.objects();
        let total = objects.len();
        objects.truncate(LISTED);
        let listed = objects.iter().map(|o| {
            let (owner, kind, detail) = (o.owner, o.kind, o.detail);
            format!("{{\"owner\":\"{owner}\",\"kind\":\"{kind:?}\",\"detail\":{detail}}}")
        });
        let listed: Vec<String> = listed.collect();
        let limits: Vec<String> = self.usage().iter().map(limit).collect();
        let device = self.port.as_ref().map_or("null".to_owned(), |port| {
            let (a, o) = (port.query_device(), port.objects());
            format!(
                "{{\"provider\":\"{}\",\"usable\":{},\"queue_pairs\":{},\"max_queue_pairs\":{},\
                 \"regions\":{},\"max_regions\":{},\"registered_bytes\":{},\
                 \"max_registered_bytes\":{},\"domains\":{},\"max_domains\":{}}}",
                port.name(),
                self.has_device(),
                o.queue_pairs,
                a.max_qp,
                o.regions,
                a.max_mr,
                o.registered,
                a.max_registered,
                o.domains,
                a.max_pd
            )
        });
        let (s, lanes) = (&self.stats, self.sessions.len());
        format!(
            "{{\"shard\":{},\"lanes\":{lanes},\"opened_rdma\":{},\"opened_quic\":{},\
             \"refused\":{},\"fallbacks\":{},\"ended\":{},\"device\":{device},\
             \"limits\":[{}],\"objects_total\":{total},\"objects\":[{}]}}",
            self.shard,
            s.opened_rdma,
            s.opened_quic,
            s.refused,
            s.fallbacks,
            s.ended,
            limits.join(","),
            listed.join(",")
        )
    }
}
