//! Every bound that a peer, the network or a misuse could otherwise push without end.
//!
//! One file, so that the memory a connection can cost is a sum one can read. A bound that the
//! embedder may choose is a default here and a field of the configuration; the rest are fixed.

use std::time::Duration;

/// The smallest UDP payload that every QUIC path carries (RFC 9000 §14).
pub const MIN_UDP_PAYLOAD: usize = 1200;
/// The largest UDP payload: 65,535 less the 8-byte UDP header, as IPv6 carries it.
pub const MAX_UDP_PAYLOAD: usize = 65_527;
/// The largest UDP payload over IPv4: 65,535 less the IP header's 20 bytes and UDP's 8.
pub const MAX_UDP_PAYLOAD_V4: usize = 65_507;
/// The longest connection ID of version 1 (RFC 9000 §17.2).
pub const MAX_CID_LEN: usize = 20;
/// The length of the connection IDs that we issue unless configured otherwise: seven bytes of
/// randomness and the masked shard number.
pub const DEFAULT_CID_LEN: usize = 8;
/// Bytes of a stateless reset token (RFC 9000 §10.3).
pub const RESET_TOKEN_LEN: usize = 16;

/// Segments in one train: one `sendmsg` with UDP_SEGMENT, one receive with UDP_GRO.
pub const MAX_TRAIN_SEGMENTS: usize = 64;
/// Pieces of one train that stand outside its buffer.
pub const GATHER_PIECES: usize = 32;
/// Bytes in one train; the kernel takes at most 65,507 over IPv4 in one UDP_SEGMENT send.
pub const MAX_TRAIN_BYTES: usize = 65_507;

/// Bytes of CRYPTO data buffered ahead of what has been read, per level (RFC 9000 §7.5 asks for at
/// least 4,096).
pub const CRYPTO_WINDOW: u64 = 64 * 1024;
/// Gaps in the received part of one stream; more is a peer that fragments on purpose.
pub const STREAM_GAPS: usize = 1024;
/// Ranges of received packet numbers remembered per space; older ranges are forgotten and what
/// falls below them is treated as a duplicate.
pub const ACK_RANGES: usize = 64;
/// Ranges accepted in one ACK frame before the rest is ignored.
pub const ACK_FRAME_RANGES: usize = 1024;
/// PATH_RESPONSE frames queued per path; further challenges are ignored until some left.
pub const PATH_RESPONSES: usize = 8;
/// Addresses of a path beside the one in use: probed by either side, or left a moment ago.
pub const PROBES: usize = 4;
/// Paths of one connection, open or validating.
pub const PATHS: usize = 8;
/// Paths of one connection whose state is kept: as many again may be closed and not forgotten yet.
pub const PATH_RECORDS: usize = 2 * PATHS;
/// Pairs of addresses between which a path failed and that wait before the next attempt.
pub const FAILED_PAIRS: usize = 64;
/// Interfaces and addresses of this machine that are followed; more are not looked at.
pub const INTERFACES: usize = 1024;
/// Paths, or ways to be sent on one, that streams are pinned to at once.
pub const PINNED_PATHS: usize = 2 * PATH_RECORDS;
/// Addresses that a peer may name, of which paths may be tried.
pub const PEER_ADDRESSES: usize = 16;
/// The time after which one more address, or a change of one, is taken from a peer.
pub const ADDRESS_NEWS_EVERY: Duration = Duration::from_secs(10);
/// Paths that may be tried at once to addresses of a peer's naming.
pub const ADDRESS_TRIES: u32 = 4;
/// The time after which one more may be.
pub const ADDRESS_TRY_EVERY: Duration = Duration::from_secs(2);
/// Packets whose copies wait for the windows of other paths.
pub const COPIES: usize = 512;
/// Streams and datagrams whose copies an application may ask for, and streams with a deadline.
pub const CHOSEN: usize = 1024;
/// Packets of which is known on which paths their frames were before.
pub const REINJECTED: usize = 4096;
/// PATH_ABANDON frames that wait to be sent.
pub const PATH_ABANDONS: usize = 4 * PATHS;
/// Connection IDs that we keep active per path, and let the peer issue to us.
pub const ACTIVE_CIDS: usize = 4;
/// Connection IDs that we issue for a path that is not in use yet.
pub const CIDS_AHEAD: usize = 2;
/// RETIRE_CONNECTION_ID frames waiting to be acknowledged (RFC 9000 §5.1.2 suggests twice the
/// active limit); one more is CONNECTION_ID_LIMIT_ERROR.
pub const PENDING_RETIREMENTS: usize = 2 * ACTIVE_CIDS;
/// Packets kept because their keys are not there yet.
pub const UNDECRYPTABLE_PACKETS: usize = 10;
/// Bytes of them, for they are kept before their sender has proved anything.
pub const UNDECRYPTABLE_BYTES: usize = 16 * 1024;
/// Datagrams kept for one connection that is not there yet: 0-RTT ahead of its Initial, or what
/// follows an Initial that the application has not decided about.
pub const AHEAD_DATAGRAMS: usize = 10;
/// All of them that an endpoint keeps.
pub const AHEAD_ALL_DATAGRAMS: usize = 256;
/// Bytes of them.
pub const AHEAD_BYTES: usize = 256 * 1024;
/// Retry tokens remembered as used in each of two generations of their lifetime; one more is
/// refused.
pub const SPENT_TOKENS: usize = 1 << 16;
/// Servers whose NEW_TOKEN tokens a client keeps, by default.
pub const TOKEN_SERVERS: usize = 256;
/// Tokens of each of them.
pub const TOKENS_OF_SERVER: usize = 2;
/// Bytes of a token that a client keeps; an Initial packet needs room beside it.
pub const TOKEN_BYTES: usize = 512;
/// Bytes of a stateless reset, at least (RFC 9000 §10.3).
pub const MIN_STATELESS_RESET: usize = 21;
/// Datagrams (RFC 9221) queued for sending by default, in bytes.
pub const DATAGRAM_SEND_BYTES: usize = 1024 * 1024;
/// Received datagrams (RFC 9221) waiting for the application by default, in bytes.
pub const DATAGRAM_RECV_BYTES: usize = 1024 * 1024;
/// Streams of each direction that a peer may have open, by default.
pub const STREAMS: u64 = 1024;
/// Receive window of one stream at the start, by default, in bytes.
pub const STREAM_WINDOW: u64 = 1024 * 1024;
/// Receive window of one stream that auto-tuning may reach, by default, in bytes.
pub const STREAM_WINDOW_MAX: u64 = 16 * 1024 * 1024;
/// Receive window of a connection at the start, by default, in bytes.
pub const CONNECTION_WINDOW: u64 = 2 * 1024 * 1024;
/// Receive window of a connection that auto-tuning may reach, by default, in bytes.
pub const CONNECTION_WINDOW_MAX: u64 = 32 * 1024 * 1024;
/// Bytes that one stream holds for the application before `write` takes no more, by default.
pub const SEND_BUFFER: usize = 4 * 1024 * 1024;
/// Packets sent and not yet acknowledged, lost or discarded: of a connection, shared by its paths.
pub const SENT_PACKETS: usize = 1 << 17;
/// Trains whose circumstances BBR remembers for its samples; later ones join the last.
pub const SEND_RECORDS: usize = 8192;
/// Packets declared lost whose late acknowledgement is still recognised, per space.
pub const LOST_PACKETS: usize = 1024;
/// Frames of a peer that lead nowhere, at once, by default; one more closes the connection.
pub const GLITCH_BURST: u32 = 10_000;
/// And so many more every second.
pub const GLITCH_RATE: u32 = 1_000;
/// Events waiting for the application of one connection; the engine merges what it can.
pub const EVENTS: usize = 4096;
/// What happened to a connection's paths and waits for a handle of the async face.
pub const PATH_EVENTS: usize = 64;
/// Bytes of a close reason that we send; the rest is cut.
pub const REASON_BYTES: usize = 256;
/// Transport parameters of unknown number that are checked for duplicates; more are ignored
/// without that check.
pub const UNKNOWN_PARAMETERS: usize = 32;

/// Bytes of a ClientHello that a server keeps until it is whole, to choose a version by it; a
/// longer one goes to TLS piece by piece, in the client's own version.
pub const CLIENT_HELLO: usize = 64 * 1024;

/// Connections on one shard that have not finished their handshake, by default; from half of it on,
/// clients are asked to prove their address first.
pub const HALF_OPEN: usize = 4096;
/// Datagrams of another protocol on a shard's sockets that wait to be sent or to be read.
pub const OTHER_DATAGRAMS: usize = 256;
/// Bytes of those that wait to be sent.
pub const OTHER_BYTES: usize = 1024 * 1024;
/// Networks whose handshakes are counted one by one, where a rate is set for them.
pub const PREFIXES: usize = 8192;
/// Established connections of a shard that the application has not taken, by default.
pub const ACCEPT_BACKLOG: usize = 1024;
/// Time for a handshake to finish, by default.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The longest probe timeout that what a connection leaves behind is kept by, unless it is
/// configured for longer round trips: who acknowledges an hour late is not kept for hours.
pub const LONGEST_PTO: Duration = Duration::from_secs(60);
/// Times that a path is asked again that does not answer and is the only one left; each takes as
/// long as a path has to answer.
pub const LAST_PATH_ASKED: u8 = 16;
/// Time without a packet after which a connection gives back what it can do without.
pub const REST_AFTER: Duration = Duration::from_millis(250);
/// Datagrams waiting in the ring between two shards.
pub const MAILBOX_DATAGRAMS: usize = 1024;
/// Runs of more than 2 KiB among them: 64 KiB of memory each, once they were needed.
pub const MAILBOX_TRAINS: usize = 32;
/// Commands waiting from application handles for one shard.
pub const MAILBOX_COMMANDS: usize = 4096;
/// Attempts to connect waiting for one shard; further ones wait where they were made.
pub const MAILBOX_CONNECTS: usize = 1024;
/// Bytes of one stream on their way from an async handle to its shard.
pub const HANDLE_SEND_WINDOW: usize = 512 * 1024;
/// Pieces that these bytes may be in.
pub const HANDLE_SEND_CHUNKS: usize = 32;
/// Bytes of one stream on their way from its shard to an async handle; what exceeds them waits in
/// the stream, so that its flow control follows the reader.
pub const HANDLE_RECV_WINDOW: usize = 512 * 1024;
/// Pieces that these bytes may be in.
pub const HANDLE_RECV_CHUNKS: usize = 16;

/// Sockets of one shard's backend, by default.
pub const SOCKETS: usize = 1024;
/// Descriptors beside its sockets that one shard's backend watches.
pub const WATCHES: usize = 16;

/// Chunks of log records (qlog), of some 16 KiB, that wait for the thread that writes them.
pub const QLOG_CHUNKS: usize = 256;
/// Bytes of one record after which frames and acknowledged ranges are left out.
pub const QLOG_RECORD_BYTES: usize = 32 * 1024;
/// Bytes of one connection's log file.
pub const QLOG_FILE_BYTES: u64 = 1 << 30;

/// Queue pairs of one RDMA device of ours, live at once.
pub const RDMA_QUEUE_PAIRS: usize = 1 << 16;
/// Protection domains of one RDMA device of ours.
pub const RDMA_DOMAINS: usize = 1 << 16;
/// Memory regions of one RDMA device of ours.
pub const RDMA_REGIONS: usize = 1 << 17;
/// Bytes of one memory region.
pub const RDMA_REGION_BYTES: usize = 1 << 36;
/// Bytes of all memory regions of one RDMA device of ours, by default; they are resident.
pub const RDMA_REGISTERED_BYTES: usize = 1 << 32;
/// Completion queues, and shared receive queues, of one RDMA device of ours.
pub const RDMA_QUEUES: usize = 1 << 12;
/// Completions that one queue holds, at most.
pub const RDMA_CQ_ENTRIES: usize = 1 << 20;
/// Work requests that wait in one send, receive or shared receive queue, at most.
pub const RDMA_WORK_REQUESTS: usize = 1 << 14;
/// Pieces of memory that one work request gathers or scatters.
pub const RDMA_SGES: usize = 16;
/// Bytes of one message that may be given inline.
pub const RDMA_INLINE_BYTES: usize = 1024;
/// Bytes of one message. At the least MTU its packets are half of what 24-bit sequence numbers can
/// tell apart.
pub const RDMA_MESSAGE_BYTES: usize = 1 << 30;
/// READs and atomics of one queue pair under way in one direction; a responder keeps so many to
/// answer them again.
pub const RDMA_READ_ATOMIC: u8 = 16;
/// Asynchronous events that wait to be polled; further ones are counted and dropped.
pub const RDMA_EVENTS: usize = 1024;
/// Bytes of SENDs and WRITEs of one queue pair on their way, at most and by default. There is no
/// congestion control in RoCE v2, and what a socket's receive buffer drops is sent again from there
/// on; so a queue pair begins with [`ROCE_WINDOW_START`] and has more once that was taken.
pub const ROCE_WINDOW: usize = 1 << 20;
/// The same of all queue pairs of a device together, which share it: they may well send to one
/// socket, which asks for twice that. With 64 of them each still has a message of 64 KiB.
pub const ROCE_WINDOW_OF_ALL: usize = 4 << 20;
/// What a queue pair begins with.
pub const ROCE_WINDOW_START: usize = 256 * 1024;
/// What loss leaves of it, at least, and what each window without loss adds.
pub const ROCE_WINDOW_STEP: usize = 64 * 1024;
/// Packets of a message after which an acknowledgement is asked for before its end.
pub const ROCE_PACKETS_PER_ACK: u32 = 32;
/// Short messages that share one acknowledgement, at most.
pub const ROCE_HELD_ACKS: u8 = 8;
/// How long a lane's acknowledgement waits for others: a fraction of any timeout in use, and
/// several round trips within a machine or a rack.
pub const ROCE_ACK_DELAY: Duration = Duration::from_micros(50);

/// Bytes of one bootstrap message, and of a lane's frame that is none; longer ones end the
/// connection.
pub const BOOTSTRAP_BYTES: usize = 1024;
/// Bytes of one message on a lane, its header included: the least and the greatest that either side
/// may ask for.
pub const LANE_SLOT: (usize, usize) = (64, 65_536);
/// Messages of a lane under way in one direction: the least and the greatest.
pub const LANE_WINDOW: (usize, usize) = (2, 1024);
/// One-sided operations of a lane under way, as either side asks for them.
pub const LANE_OPERATIONS: usize = 64;
/// Bytes that wait for room on a lane's stream before nothing more is read from it.
pub const LANE_BACKLOG: usize = 1 << 20;
/// Queue pairs that a client's lane may ask for at once, and how long it then waits for each one
/// more: making one takes the server's device a while.
pub const LANE_RETURNS: u32 = 8;
/// See [`LANE_RETURNS`].
pub const LANE_RETURN_EVERY: Duration = Duration::from_millis(100);
/// Bytes of the region that a lane announces.
pub const LANE_REGION: usize = 1 << 30;
/// Certificate chains of peers that a thread compares a new one with, to keep the same only once.
pub const SHARED_CHAINS: usize = 8;
/// Lanes of one shard, at either end.
pub const LANES: usize = 1 << 14;

const _: () = assert!(CRYPTO_WINDOW >= 4096);
const _: () = assert!(MIN_UDP_PAYLOAD <= MAX_UDP_PAYLOAD && MAX_UDP_PAYLOAD <= u16::MAX as usize);
const _: () = assert!(DEFAULT_CID_LEN <= MAX_CID_LEN && DEFAULT_CID_LEN >= 8);
const _: () = assert!(STREAM_WINDOW <= STREAM_WINDOW_MAX);
const _: () = assert!(CONNECTION_WINDOW <= CONNECTION_WINDOW_MAX);
const _: () = assert!(ACTIVE_CIDS >= 2);
const _: () = assert!(RDMA_MESSAGE_BYTES / 256 <= 1 << 22);
