//! The numbers that are taken from reports, with their units and which way is better.

use crate::report::Workload;

/// One number of a report.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its key in the results, with the unit.
    pub key: &'static str,
    /// Its column's head.
    pub head: &'static str,
    /// What a unit of the column is, in units of `get`.
    pub unit: f64,
    /// Digits behind the point.
    pub digits: usize,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Takes it from a report; none where it was not measured.
    pub get: fn(&Workload) -> Option<f64>,
}

impl Metric {
    /// A value in the column's unit.
    pub fn show(&self, value: f64) -> String {
        format!("{:.*}", self.digits, value / self.unit)
    }
}

const fn more(
    key: &'static str,
    head: &'static str,
    (unit, digits): (f64, usize),
    get: fn(&Workload) -> Option<f64>,
) -> Metric {
    Metric {
        key,
        head,
        unit,
        digits,
        more_is_better: true,
        get,
    }
}

const fn less(
    key: &'static str,
    head: &'static str,
    unit: (f64, usize),
    get: fn(&Workload) -> Option<f64>,
) -> Metric {
    Metric {
        more_is_better: false,
        ..more(key, head, unit, get)
    }
}

/// Application data that arrived.
pub const GOODPUT: Metric = more("goodput_bits_per_second", "Gbit/s", (1e9, 2), |w| {
    Some(w.goodput_bits_per_second)
});
/// What a byte costs the client.
pub const CLIENT_PER_GIB: Metric = less(
    "client_cpu_seconds_per_gib",
    "client CPU s/GiB",
    (1.0, 3),
    |w| w.cpu_seconds_per_gib_of(w.cpu_utilization_percent.client),
);
/// What a byte costs the server.
pub const SERVER_PER_GIB: Metric = less(
    "server_cpu_seconds_per_gib",
    "server CPU s/GiB",
    (1.0, 3),
    |w| w.cpu_seconds_per_gib_of(w.cpu_utilization_percent.server),
);
/// Operations finished.
pub const RATE: Metric = more("operations_per_second", "1000/s", (1e3, 2), |w| {
    Some(w.operations_per_second)
});
/// The median latency.
pub const P50: Metric = less("latency_ns_p50", "p50 µs", (1e3, 1), |w| {
    w.latency_ns.map(|l| l.p50 as f64)
});
/// What 99 % of latencies do not exceed.
pub const P99: Metric = less("latency_ns_p99", "p99 µs", (1e3, 1), |w| {
    w.latency_ns.map(|l| l.p99 as f64)
});
/// What 99.9 % of latencies do not exceed.
pub const P999: Metric = less("latency_ns_p999", "p99.9 µs", (1e3, 1), |w| {
    w.latency_ns.map(|l| l.p999 as f64)
});
/// What an operation costs the client.
pub const CLIENT_PER_OPERATION: Metric = less(
    "client_cpu_seconds_per_operation",
    "client CPU µs each",
    (1e-6, 2),
    |w| per_operation(w, w.cpu_utilization_percent.client),
);
/// What an operation costs the server.
pub const SERVER_PER_OPERATION: Metric = less(
    "server_cpu_seconds_per_operation",
    "server CPU µs each",
    (1e-6, 2),
    |w| per_operation(w, w.cpu_utilization_percent.server),
);
/// The share of messages that did not arrive.
pub const LOSS: Metric = less("lost_share", "lost %", (0.01, 2), |w| {
    let sent = w.operations + w.failures;
    (sent > 0).then(|| w.failures as f64 / sent as f64)
});
/// Memory of a connection in the server's process.
pub const SERVER_MEMORY: Metric = less(
    "server_memory_bytes_per_connection",
    "server KiB each",
    (1024.0, 2),
    |w| w.memory_bytes_per_connection?.server,
);
/// Memory of a connection in the client's process.
pub const CLIENT_MEMORY: Metric = less(
    "client_memory_bytes_per_connection",
    "client KiB each",
    (1024.0, 2),
    |w| w.memory_bytes_per_connection?.client,
);
/// The server's share of a core.
pub const SERVER_BUSY: Metric = less("server_cpu_percent", "server CPU %", (1.0, 2), |w| {
    w.cpu_utilization_percent.server
});
/// The client's share of a core.
pub const CLIENT_BUSY: Metric = less("client_cpu_percent", "client CPU %", (1.0, 2), |w| {
    w.cpu_utilization_percent.client
});
/// What is still there.
pub const OPEN: Metric = more("connections_open", "open", (1.0, 0), |w| {
    Some(w.operations as f64)
});

/// Of bulk data.
pub const BULK: &[Metric] = &[GOODPUT, CLIENT_PER_GIB, SERVER_PER_GIB];
/// Of one request at a time.
pub const LATENCY: &[Metric] = &[P50, P99, P999, RATE, CLIENT_BUSY, SERVER_BUSY];
/// Of many requests at a time.
pub const REQUESTS: &[Metric] = &[
    RATE,
    P50,
    P99,
    P999,
    CLIENT_PER_OPERATION,
    SERVER_PER_OPERATION,
];
/// Of requests at fixed times.
pub const OPEN_LOOP: &[Metric] = &[P99, P50, P999, RATE, CLIENT_BUSY, SERVER_BUSY];
/// Of handshakes.
pub const HANDSHAKES: &[Metric] = &[RATE, P50, P99, CLIENT_PER_OPERATION, SERVER_PER_OPERATION];
/// Of datagrams.
pub const DATAGRAMS: &[Metric] = &[RATE, LOSS, CLIENT_PER_OPERATION, SERVER_PER_OPERATION];
/// Of idle connections.
pub const IDLE: &[Metric] = &[SERVER_MEMORY, CLIENT_MEMORY, SERVER_BUSY, CLIENT_BUSY, OPEN];

fn per_operation(w: &Workload, share_percent: Option<f64>) -> Option<f64> {
    let cpu = w.cpu_seconds_of(share_percent)?;
    (w.operations > 0).then(|| cpu / w.operations as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CpuUtilization, Memory};

    #[test]
    fn metrics_read_a_report_and_say_when_they_cannot() {
        let workload = Workload {
            duration_seconds: 2.0,
            operations: 1000,
            failures: 250,
            cpu_utilization_percent: CpuUtilization {
                client: None,
                server: Some(50.0),
            },
            memory_bytes_per_connection: Some(Memory {
                client: None,
                server: Some(2048.0),
            }),
            ..Workload::default()
        };
        assert_eq!((SERVER_PER_OPERATION.get)(&workload), Some(0.001));
        assert_eq!((LOSS.get)(&workload), Some(0.2));
        assert_eq!((CLIENT_PER_GIB.get)(&workload), None);
        assert_eq!((SERVER_PER_GIB.get)(&workload), None, "no bytes");
        assert_eq!((P99.get)(&workload), None);
        assert_eq!((SERVER_MEMORY.get)(&workload), Some(2048.0));
        assert_eq!((CLIENT_MEMORY.get)(&workload), None);
        assert_eq!((OPEN.get)(&workload), Some(1000.0));
    }

    #[test]
    fn values_are_shown_in_the_unit_of_their_column() {
        assert_eq!(GOODPUT.show(12_345_678_901.0), "12.35");
        assert_eq!(SERVER_MEMORY.show(3072.0), "3.00");
        assert_eq!((GOODPUT.more_is_better, P99.more_is_better), (true, false));
    }
}
