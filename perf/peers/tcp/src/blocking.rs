//! One connection with blocking sockets on both sides: bulk data and pipelined requests. Its first
//! byte says which, as that of a stream does elsewhere.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use corelane_bench_peer::streams::{self, CHUNK, ECHO, FLOOD, SINK};
use corelane_bench_peer::{
    Client, Fault, Latency, MAX_UNDER_WAY, Meter, Outcome, Pacer, Run, SERVER_NAME, Server, Timer,
    Work, new_latency, now, rustls as tls,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

/// What rustls holds of data that the socket has not taken yet, `tuned`, bytes.
const TLS_BUFFER: usize = 256 << 10;

/// A connection of either side.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn prepare(socket: &TcpStream, run: &Run) -> io::Result<()> {
    if run.profile.is_tuned() {
        socket.set_nodelay(true)?;
    }
    Ok(())
}

pub(super) fn serve(
    server: &Server,
    listener: &TcpListener,
    addr: SocketAddr,
) -> Result<(), Fault> {
    let run = &server.run;
    let config = Arc::new(tls::server_config(run, &server.certificates)?);
    server.listening(addr);
    loop {
        let mut fds = [
            PollFd::new(&server.stop, PollFlags::IN),
            PollFd::new(listener, PollFlags::IN),
        ];
        poll(&mut fds, None)?;
        if server.stop.is_set() {
            return Ok(());
        }
        let (socket, _) = listener.accept()?;
        prepare(&socket, run)?;
        let mut connection = ServerConnection::new(config.clone())?;
        if run.profile.is_tuned() {
            connection.set_buffer_limit(Some(TLS_BUFFER));
        }
        // Clients break off at the end of a run.
        let _ = serve_connection(
            &mut StreamOwned::new(connection, socket),
            run,
            &server.meter,
        );
    }
}

fn serve_connection(stream: &mut impl Stream, run: &Run, meter: &Meter) -> io::Result<()> {
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0x5a; CHUNK];
    match kind[0] {
        SINK => loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => meter.bytes.add(count as u64),
            }
        },
        FLOOD => loop {
            stream.write_all(&buffer)?;
        },
        _ => echo(stream, run.size),
    }
}

/// Answers every whole request with itself.
fn echo(stream: &mut impl Stream, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK.max(size)];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            count => filled += count,
        }
        let whole = filled - filled % size;
        if whole > 0 {
            stream.write_all(&buffer[..whole])?;
            buffer.copy_within(whole..filled, 0);
            filled -= whole;
        }
    }
}

pub(super) fn drive(client: &Client) -> Result<Outcome, Fault> {
    let run = &client.run;
    let config = tls::client_config(run, &client.certificates, &Arc::default())?;
    let mut socket = TcpStream::connect(client.addr)?;
    prepare(&socket, run)?;
    let mut connection = ClientConnection::new(Arc::new(config), SERVER_NAME.try_into()?)?;
    if run.profile.is_tuned() {
        connection.set_buffer_limit(Some(TLS_BUFFER));
    }
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    let mut stream = StreamOwned::new(connection, socket);
    client.ready();
    let latency = match (run.work, run.rate) {
        (Work::Up, _) => upload(&mut stream, &client.meter).map(|()| None),
        (Work::Down, _) => download(&mut stream, &client.meter).map(|()| None),
        (_, None) => requests(&mut stream, run, &client.meter).map(Some),
        (_, Some(rate)) => at_rate(&mut stream, rate, run.size, &client.meter).map(Some),
    }?;
    Ok(Outcome { latency, open: 0 })
}

fn upload(stream: &mut impl Stream, meter: &Meter) -> Result<(), Fault> {
    stream.write_all(&[SINK])?;
    let chunk = vec![0x5a; CHUNK];
    while !meter.is_stopped() {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn download(stream: &mut impl Stream, meter: &Meter) -> Result<(), Fault> {
    stream.write_all(&[FLOOD])?;
    let mut buffer = vec![0; CHUNK];
    while !meter.is_stopped() {
        match stream.read(&mut buffer)? {
            0 => return Err("the server ended the connection".into()),
            count => meter.bytes.add(count as u64),
        }
    }
    Ok(())
}

/// Requests that were sent and not answered; TCP answers them in order.
struct Pipeline<'a> {
    meter: &'a Meter,
    size: usize,
    request: Vec<u8>,
    sent: VecDeque<Instant>,
    latency: Latency,
    output: Vec<u8>,
    input: Vec<u8>,
    /// Bytes of an answer that is not whole yet.
    partial: usize,
}

impl<'a> Pipeline<'a> {
    fn new(meter: &'a Meter, size: usize) -> Self {
        Self {
            meter,
            size,
            request: streams::request(size),
            sent: VecDeque::new(),
            latency: new_latency(),
            output: Vec::new(),
            input: vec![0; CHUNK],
            partial: 0,
        }
    }

    /// Writes requests that count from these times, all at once.
    fn send(
        &mut self,
        stream: &mut impl Stream,
        since: impl Iterator<Item = Instant>,
    ) -> io::Result<()> {
        self.output.clear();
        for begin in since {
            self.sent.push_back(begin);
            self.output.extend_from_slice(&self.request);
        }
        stream.write_all(&self.output)
    }

    /// Reads what has come, and waits for it if nothing has.
    fn receive(&mut self, stream: &mut impl Stream) -> Result<(), Fault> {
        let count = stream.read(&mut self.input)?;
        if count == 0 {
            return Err("the server ended the connection".into());
        }
        self.partial += count;
        while self.partial >= self.size {
            self.partial -= self.size;
            let begin = self.sent.pop_front().ok_or("an answer to nothing")?;
            self.meter.operations.add(1);
            if self.meter.is_measuring() {
                let nanos = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.latency.saturating_record(nanos.max(1));
            }
        }
        Ok(())
    }
}

/// As many requests under way as the run says.
fn requests(stream: &mut impl Stream, run: &Run, meter: &Meter) -> Result<Latency, Fault> {
    let mut pipeline = Pipeline::new(meter, run.size);
    stream.write_all(&[ECHO])?;
    while !meter.is_stopped() {
        let free = run.streams - pipeline.sent.len();
        pipeline.send(stream, std::iter::repeat_n(now(), free))?;
        pipeline.receive(stream)?;
    }
    Ok(pipeline.latency)
}

/// Requests at fixed times.
fn at_rate(
    stream: &mut StreamOwned<ClientConnection, TcpStream>,
    rate: u32,
    size: usize,
    meter: &Meter,
) -> Result<Latency, Fault> {
    let mut pipeline = Pipeline::new(meter, size);
    stream.write_all(&[ECHO])?;
    let timer = Timer::new()?;
    let mut pacer = Pacer::new(now(), rate);
    while !meter.is_stopped() {
        let free = MAX_UNDER_WAY - pipeline.sent.len();
        let time = now();
        let due = std::iter::from_fn(|| pacer.take(time)).take(free);
        pipeline.send(stream, due)?;
        let wait = pacer.next().saturating_duration_since(now());
        // What is due and has no room waits for answers, not for time.
        let timed = pipeline.sent.len() < MAX_UNDER_WAY;
        if timed {
            timer.set(wait)?;
        }
        let mut fds = [
            PollFd::new(&stream.sock, PollFlags::IN),
            PollFd::new(&timer, PollFlags::IN),
        ];
        poll(&mut fds[..1 + usize::from(timed)], None)?;
        if !fds[0].revents().is_empty() {
            pipeline.receive(stream)?;
        }
    }
    Ok(pipeline.latency)
}
