//! What an endpoint asks of the code that embeds it.

use super::endpoint::ConnId;
use super::incoming::{Decision, Incoming, IncomingId};
use crate::base::RecvMeta;
use crate::stream::{StreamSink, Streams, Taken};
use crate::wire::StreamId;

/// What an endpoint asks of the code that embeds it, while a train is being handled.
pub trait Application {
    /// In-order stream bytes, straight from the receive buffer; returns how many were taken. The
    /// rest is kept and can be read from the stream. The connection's streams may be written to at
    /// once.
    fn on_stream_data(
        &mut self,
        conn: ConnId,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        let _ = (conn, streams, id, data, fin);
        Taken::Prefix(0)
    }

    /// A datagram (RFC 9221), straight from the receive buffer. False leaves it in the connection's
    /// queue, and the connection then has [`Event::DatagramReceived`](super::Event); while any
    /// wait there, none is shown here.
    #[inline]
    fn on_datagram(&mut self, conn: ConnId, data: &[u8]) -> bool {
        let _ = (conn, data);
        false
    }

    /// A client wants to connect.
    fn on_incoming(&mut self, incoming: &Incoming) -> Decision {
        let _ = incoming;
        Decision::Accept
    }

    /// A connection attempt was held, as [`Application::on_incoming`] asked.
    fn on_held(&mut self, id: IncomingId, incoming: &Incoming) {
        let _ = (id, incoming);
    }

    /// A connection was accepted; its handshake has begun. Of a connection whose stream data is
    /// early (see [`Streams::is_early`]), this is the first that is heard.
    fn on_accepted(&mut self, conn: ConnId) {
        let _ = conn;
    }

    /// A datagram whose destination is unknown here. True when it was handed to its owner.
    fn on_foreign(&mut self, dcid: &[u8], meta: &RecvMeta, datagram: &mut [u8]) -> bool {
        let _ = (dcid, meta, datagram);
        false
    }
}

/// Names the connection to the application that stream data belongs to.
pub(super) struct Sink<'a> {
    pub(super) app: &'a mut dyn Application,
    pub(super) id: ConnId,
}

impl StreamSink for Sink<'_> {
    #[inline]
    fn on_stream_data(
        &mut self,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        self.app.on_stream_data(self.id, streams, id, data, fin)
    }

    #[inline]
    fn on_datagram(&mut self, data: &[u8]) -> bool {
        self.app.on_datagram(self.id, data)
    }
}

/// Names a connection that is being accepted: the application hears of it before its early data.
pub(super) struct FirstFlight<'a> {
    app: &'a mut dyn Application,
    id: ConnId,
    told: bool,
}

impl<'a> FirstFlight<'a> {
    pub(super) fn new(app: &'a mut dyn Application, id: ConnId) -> Self {
        let told = false;
        Self { app, id, told }
    }

    /// Tells the application of the connection, once. What authenticated made it one.
    pub(super) fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.app.on_accepted(self.id);
        }
    }
}

impl StreamSink for FirstFlight<'_> {
    fn on_stream_data(
        &mut self,
        streams: &mut Streams,
        id: StreamId,
        data: &[u8],
        fin: bool,
    ) -> Taken {
        self.tell();
        self.app.on_stream_data(self.id, streams, id, data, fin)
    }
}
