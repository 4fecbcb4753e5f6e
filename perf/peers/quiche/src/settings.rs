//! The settings of a run as quiche takes them. quiche has few defaults of its own: where it has
//! none, `default` takes the values of its samples.

use corelane_bench_peer::{
    ALPN, CONNECTION_WINDOW, Certificates, Fault, IDLE_TIMEOUT, Profile, Run, SOCKET_BUFFER,
    STREAM_WINDOW, UDP_PAYLOAD, Work,
};
use quiche::{Config, CongestionControlAlgorithm, PROTOCOL_VERSION};
use serde_json::{Value, json};

/// The largest packet that quiche sends, bytes.
const JUMBO_PAYLOAD: usize = 16_383;

/// What differs by profile.
struct Values {
    payload: usize,
    stream_window: u64,
    connection_window: u64,
    streams: u64,
    datagrams: usize,
    pacing: bool,
}

fn values(run: &Run) -> Values {
    if !run.profile.is_tuned() {
        // Of quiche's samples.
        return Values {
            payload: 1350,
            stream_window: 1_000_000,
            connection_window: 10_000_000,
            streams: 1024,
            datagrams: 1000,
            pacing: true,
        };
    }
    Values {
        payload: match run.profile {
            Profile::Jumbo => JUMBO_PAYLOAD,
            _ => UDP_PAYLOAD.into(),
        },
        stream_window: STREAM_WINDOW.into(),
        connection_window: CONNECTION_WINDOW.into(),
        streams: run.concurrent_streams() as u64,
        datagrams: 8192,
        pacing: false,
    }
}

/// The settings, for the report.
pub fn describe(run: &Run) -> Value {
    let values = values(run);
    json!({
        "udp_payload_bytes": values.payload,
        "stream_window_bytes": values.stream_window,
        "connection_window_bytes": values.connection_window,
        "concurrent_streams": values.streams,
        "datagram_queue": values.datagrams,
        "pacing": values.pacing,
        "congestion_control": "cubic",
        "crypto": "boringssl",
        "gso": true,
    })
}

/// What is asked of the kernel for the socket.
pub fn socket_buffer(run: &Run) -> Option<usize> {
    run.profile.is_tuned().then_some(SOCKET_BUFFER)
}

/// A server's configuration.
///
/// # Errors
/// When quiche does not take it.
pub fn server(run: &Run, certificates: &Certificates) -> Result<Config, Fault> {
    let mut config = common(run)?;
    config.load_cert_chain_from_pem_file(path(&certificates.leaf_file())?)?;
    config.load_priv_key_from_pem_file(path(&certificates.key_file())?)?;
    Ok(config)
}

/// A client's configuration.
///
/// # Errors
/// When quiche does not take it.
pub fn client(run: &Run, certificates: &Certificates) -> Result<Config, Fault> {
    let mut config = common(run)?;
    config.load_verify_locations_from_file(path(&certificates.authority_file())?)?;
    config.verify_peer(true);
    Ok(config)
}

fn path(path: &std::path::Path) -> Result<&str, Fault> {
    path.to_str()
        .ok_or_else(|| "a path that is not UTF-8".into())
}

fn common(run: &Run) -> Result<Config, Fault> {
    let values = values(run);
    let mut config = Config::new(PROTOCOL_VERSION)?;
    config.set_application_protos(&[ALPN])?;
    config.set_initial_max_data(values.connection_window);
    config.set_initial_max_stream_data_bidi_local(values.stream_window);
    config.set_initial_max_stream_data_bidi_remote(values.stream_window);
    config.set_initial_max_streams_bidi(values.streams);
    config.set_max_send_udp_payload_size(values.payload);
    config.set_max_recv_udp_payload_size(values.payload);
    config.set_disable_active_migration(true);
    config.enable_pacing(values.pacing);
    if run.profile.is_tuned() {
        config.set_max_stream_window(values.stream_window);
        config.set_max_connection_window(values.connection_window);
        // BoringSSL takes AES-128 by itself where the processor has AES.
        config.set_curves_list("X25519")?;
        config.set_cc_algorithm(CongestionControlAlgorithm::CUBIC);
    }
    if run.work == Work::Datagram {
        config.enable_dgram(true, values.datagrams, values.datagrams);
    }
    let timeout = match run.work {
        Work::Idle => IDLE_TIMEOUT,
        _ => std::time::Duration::from_secs(30),
    };
    config.set_max_idle_timeout(u64::try_from(timeout.as_millis())?);
    Ok(config)
}
