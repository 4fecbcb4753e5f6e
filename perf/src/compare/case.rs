//! What is compared: the work, and the numbers that are taken from a report of it.

use crate::report::Workload;

/// The work of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Bulk data on so many streams of one connection, from the client or to it.
    Bulk {
        /// Streams at a time.
        streams: u16,
        /// From the server to the client.
        down: bool,
    },
    /// Requests of 64 bytes on one connection, so many at a time.
    RequestResponse {
        /// Requests at a time.
        depth: u16,
    },
    /// Full handshakes, so many at a time.
    Handshake {
        /// Handshakes at a time.
        parallel: u16,
    },
    /// Datagrams of so many bytes on one connection.
    Datagram {
        /// A datagram's length.
        size: u32,
    },
}

/// One kind of work, and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, for the table.
    pub title: &'static str,
    /// The work.
    pub work: Work,
}

/// Every case.
pub const CASES: &[Case] = &[
    Case {
        name: "bulk-up",
        title: "bulk, one stream, client to server",
        work: Work::Bulk {
            streams: 1,
            down: false,
        },
    },
    Case {
        name: "bulk-down",
        title: "bulk, one stream, server to client",
        work: Work::Bulk {
            streams: 1,
            down: true,
        },
    },
    Case {
        name: "bulk-up-8",
        title: "bulk, eight streams, client to server",
        work: Work::Bulk {
            streams: 8,
            down: false,
        },
    },
    Case {
        name: "bulk-down-8",
        title: "bulk, eight streams, server to client",
        work: Work::Bulk {
            streams: 8,
            down: true,
        },
    },
    Case {
        name: "rr-1",
        title: "request and response, 64 B, one at a time",
        work: Work::RequestResponse { depth: 1 },
    },
    Case {
        name: "rr-64",
        title: "request and response, 64 B, 64 at a time",
        work: Work::RequestResponse { depth: 64 },
    },
    Case {
        name: "handshake-32",
        title: "full handshakes, 32 at a time",
        work: Work::Handshake { parallel: 32 },
    },
    Case {
        name: "datagram-100",
        title: "datagrams of 100 B",
        work: Work::Datagram { size: 100 },
    },
    Case {
        name: "datagram-1100",
        title: "datagrams of 1,100 B",
        work: Work::Datagram { size: 1100 },
    },
];

impl Case {
    /// The case of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        CASES.iter().find(|case| case.name == name)
    }

    /// The workload's name in a report.
    pub fn workload(&self) -> &'static str {
        match self.work {
            Work::Bulk { .. } => "throughput",
            Work::RequestResponse { .. } => "rr",
            Work::Handshake { .. } => "handshake",
            Work::Datagram { .. } => "datagram",
        }
    }

    /// What is taken from a report; the first is what the ratio is of.
    pub fn metrics(&self) -> &'static [Metric] {
        match self.work {
            Work::Bulk { .. } => BULK,
            Work::RequestResponse { depth: 1 } => LATENCY,
            Work::RequestResponse { .. } => REQUESTS,
            Work::Handshake { .. } => HANDSHAKES,
            Work::Datagram { .. } => DATAGRAMS,
        }
    }
}

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
    /// Takes it from a report; none where it was not measured.
    pub get: fn(&Workload) -> Option<f64>,
}

const fn metric(
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
        get,
    }
}

const GOODPUT: Metric = metric("goodput_bits_per_second", "Gbit/s", (1e9, 2), |w| {
    Some(w.goodput_bits_per_second)
});
const CLIENT_PER_GIB: Metric = metric(
    "client_cpu_seconds_per_gib",
    "client CPU s/GiB",
    (1.0, 3),
    |w| w.cpu_seconds_per_gib_of(w.cpu_utilization_percent.client),
);
const SERVER_PER_GIB: Metric = metric(
    "server_cpu_seconds_per_gib",
    "server CPU s/GiB",
    (1.0, 3),
    |w| w.cpu_seconds_per_gib_of(w.cpu_utilization_percent.server),
);
const RATE: Metric = metric("operations_per_second", "1000/s", (1e3, 2), |w| {
    Some(w.operations_per_second)
});
const P50: Metric = metric("latency_ns_p50", "p50 µs", (1e3, 1), |w| {
    w.latency_ns.map(|l| l.p50 as f64)
});
const P99: Metric = metric("latency_ns_p99", "p99 µs", (1e3, 1), |w| {
    w.latency_ns.map(|l| l.p99 as f64)
});
const P999: Metric = metric("latency_ns_p999", "p99.9 µs", (1e3, 1), |w| {
    w.latency_ns.map(|l| l.p999 as f64)
});
const SERVER_PER_OPERATION: Metric = metric(
    "server_cpu_seconds_per_operation",
    "server CPU µs each",
    (1e-6, 1),
    |w| {
        let cpu = w.cpu_seconds_of(w.cpu_utilization_percent.server)?;
        (w.operations > 0).then(|| cpu / w.operations as f64)
    },
);
const LOSS: Metric = metric("lost_share", "lost %", (0.01, 2), |w| {
    let sent = w.operations + w.failures;
    (sent > 0).then(|| w.failures as f64 / sent as f64)
});

const BULK: &[Metric] = &[GOODPUT, CLIENT_PER_GIB, SERVER_PER_GIB];
const LATENCY: &[Metric] = &[P50, P99, P999, RATE];
const REQUESTS: &[Metric] = &[RATE, P50, P99, P999];
const HANDSHAKES: &[Metric] = &[RATE, P50, P99, SERVER_PER_OPERATION];
const DATAGRAMS: &[Metric] = &[RATE, LOSS];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::CpuUtilization;

    #[test]
    fn names_are_unique_and_found() {
        for case in CASES {
            assert_eq!(CASES.iter().filter(|c| c.name == case.name).count(), 1);
            assert_eq!(Case::find(case.name).map(|c| c.work), Some(case.work));
        }
        assert!(Case::find("bulk").is_none());
    }

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
            ..Workload::default()
        };
        assert_eq!((SERVER_PER_OPERATION.get)(&workload), Some(0.001));
        assert_eq!((LOSS.get)(&workload), Some(0.2));
        assert_eq!((CLIENT_PER_GIB.get)(&workload), None);
        assert_eq!((SERVER_PER_GIB.get)(&workload), None, "no bytes");
        assert_eq!((P99.get)(&workload), None);
    }
}
