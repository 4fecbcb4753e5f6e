//! What the first byte of a stream asks of the server, and how much is written at a time.

/// Takes everything that follows.
pub const SINK: u8 = b'S';
/// Sends until the client stops it.
pub const FLOOD: u8 = b'F';
/// Answers a request, of which this byte is part, with as many bytes.
pub const ECHO: u8 = b'E';

/// What the application writes at a time, bytes.
pub const CHUNK: usize = 64 << 10;
/// The longest request.
pub const ECHO_MAX: usize = 1 << 20;

/// A request of `size` bytes.
pub fn request(size: usize) -> Vec<u8> {
    let mut request = vec![0x5a; size.max(1)];
    request[0] = ECHO;
    request
}
