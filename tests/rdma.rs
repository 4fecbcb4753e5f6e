//! RoCE v2 queue pairs: two devices over a faulty network in virtual time, everything that a peer
//! can say wrongly, and an independent implementation as the peer.

#[path = "rdma/bad_answers.rs"]
mod bad_answers;
#[path = "rdma/bad_packets.rs"]
mod bad_packets;
#[path = "rdma/bad_requests.rs"]
mod bad_requests;
#[path = "rdma/crossed.rs"]
mod crossed;
#[path = "rdma/gather.rs"]
mod gather;
#[path = "rdma/held.rs"]
mod held;
#[path = "rdma/misuse.rs"]
mod misuse;
#[path = "rdma/rig.rs"]
mod rig;
#[path = "rdma/sim.rs"]
mod sim;
#[path = "rdma/split.rs"]
mod split;
