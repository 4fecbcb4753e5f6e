//! Asynchronous events: what happens to an object without a work request that could tell
//! (`ibv_event_type`).

use super::ids::{CompletionQueueId, QueuePairId, SharedReceiveQueueId};

/// Something happened to one object, or to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AsyncEvent {
    /// A completion came that the queue had no room for. It is lost, and its queue pair in error.
    CqErr(CompletionQueueId),
    /// A queue pair that cannot go on and has no request to say so with.
    QpFatal(QueuePairId),
    /// The peer asked for something invalid; the queue pair is in error.
    QpReqErr(QueuePairId),
    /// The peer reached for memory that is not there or not for it; the queue pair is in error.
    QpAccessErr(QueuePairId),
    /// The first packet came in RTR.
    CommEst(QueuePairId),
    /// A queue pair in error takes no more from its shared receive queue.
    QpLastWqeReached(QueuePairId),
    /// A shared receive queue fell below the limit that it was armed with.
    SrqLimitReached(SharedReceiveQueueId),
    /// The port is up.
    PortActive,
    /// The port is down.
    PortErr,
    /// The device is gone, with everything on it.
    DeviceFatal,
}
