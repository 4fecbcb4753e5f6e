//! What happened, in numbers. A packet that is dropped is counted under exactly one reason.

/// Counters of a device; they only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets given to us.
    pub packets_received: u64,
    /// Packets that we made.
    pub packets_sent: u64,
    /// Trains that they left in.
    pub trains_sent: u64,
    /// Dropped: lengths, transport version or padding make no sense.
    pub malformed: u64,
    /// Dropped: another transport's opcode.
    pub foreign_opcodes: u64,
    /// Ignored: congestion notifications.
    pub congestion_notifications: u64,
    /// Dropped: for no queue pair of ours, or one that does not receive.
    pub unknown_qp: u64,
    /// Dropped: from or to another address than the queue pair's, or of another partition.
    pub wrong_path: u64,
    /// Dropped: the ICRC is wrong.
    pub bad_icrc: u64,
    /// IPv4 packets whose ICRC is right under an identification that was worked out.
    pub identified: u64,
    /// Dropped: answers to nothing that is outstanding.
    pub stale_answers: u64,
    /// Dropped: requests ahead of the expected number.
    pub out_of_sequence: u64,
    /// Requests behind it, which were acknowledged or answered again.
    pub duplicates: u64,
    /// Duplicates of READs and atomics that are remembered no longer.
    pub forgotten: u64,
    /// Sequence errors told to the peer.
    pub sequence_naks_sent: u64,
    /// Requests refused as invalid, for their memory, or for our failure.
    pub error_naks_sent: u64,
    /// Times that no receive was posted.
    pub rnr_naks_sent: u64,
    /// Sequence errors that the peer told.
    pub sequence_naks_received: u64,
    /// Times that the peer had no receive.
    pub rnr_naks_received: u64,
    /// Returns to an earlier packet, for whatever reason.
    pub rewinds: u64,
    /// Timeouts without an answer.
    pub timeouts: u64,
    /// Acknowledgements sent, of any kind.
    pub acks_sent: u64,
    /// Completions that a queue had no room for.
    pub cq_overruns: u64,
    /// Asynchronous events that the queue had no room for.
    pub events_lost: u64,
}
