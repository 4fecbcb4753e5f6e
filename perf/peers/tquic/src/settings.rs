//! The settings of a run as tquic takes them. Key exchange and cipher are BoringSSL's own choice,
//! X25519 and AES-128 where the processor has AES: tquic has no setting for them.

use std::path::Path;

use corelane_bench_peer::{
    ALPN, CONNECTION_WINDOW, Certificates, Fault, IDLE_TIMEOUT, Profile, Run, SOCKET_BUFFER,
    STREAM_WINDOW, UDP_PAYLOAD, Work,
};
use serde_json::{Value, json};
use tquic::{Config, CongestionControlAlgorithm, TlsConfig};

/// tquic builds packets in buffers of this size, bytes.
const JUMBO_PAYLOAD: usize = 2048;
/// As many packets as a train of 1,452 bytes each holds.
const BATCH: usize = 45;

/// The UDP payload that path MTU discovery ends at; it begins with 1,200 bytes.
fn payload(run: &Run) -> usize {
    match run.profile {
        Profile::Jumbo => JUMBO_PAYLOAD,
        _ => UDP_PAYLOAD.into(),
    }
}

/// The settings, for the report.
pub fn describe(run: &Run) -> Value {
    let own = json!({ "crypto": "boringssl", "gso": true });
    let mut settings = if run.profile.is_tuned() {
        json!({
            "udp_payload_bytes": payload(run),
            "stream_window_bytes": STREAM_WINDOW,
            "connection_window_bytes": CONNECTION_WINDOW,
            "concurrent_streams": run.concurrent_streams(),
            "socket_buffer_bytes": SOCKET_BUFFER,
            "pacing": false,
            "congestion_control": "cubic",
            "batch": BATCH,
        })
    } else {
        json!({ "congestion_control": "bbr" })
    };
    if let (Some(settings), Value::Object(own)) = (settings.as_object_mut(), own) {
        settings.extend(own);
    }
    settings
}

/// What is asked of the kernel for the socket.
pub fn socket_buffer(run: &Run) -> Option<usize> {
    run.profile.is_tuned().then_some(SOCKET_BUFFER)
}

/// A server's configuration.
///
/// # Errors
/// When tquic does not take it.
pub fn server(run: &Run, certificates: &Certificates) -> Result<Box<Config>, Fault> {
    let (leaf, key) = (certificates.leaf_file(), certificates.key_file());
    let alpn = vec![ALPN.to_vec()];
    let tls = TlsConfig::new_server_config(text(&leaf)?, text(&key)?, alpn, false)?;
    common(run, tls)
}

/// A client's configuration.
///
/// # Errors
/// When tquic does not take it.
pub fn client(run: &Run, certificates: &Certificates) -> Result<Box<Config>, Fault> {
    let mut tls = TlsConfig::new_client_config(vec![ALPN.to_vec()], false)?;
    tls.set_ca_certs(text(&certificates.authority_file())?)?;
    tls.set_verify(true);
    common(run, tls)
}

fn text(path: &Path) -> Result<&str, Fault> {
    path.to_str()
        .ok_or_else(|| "a path that is not UTF-8".into())
}

fn common(run: &Run, tls: TlsConfig) -> Result<Box<Config>, Fault> {
    let mut config = Config::new()?;
    config.set_tls_config(tls);
    if run.work == Work::Idle {
        config.set_max_idle_timeout(u64::try_from(IDLE_TIMEOUT.as_millis())?);
    }
    if run.profile.is_tuned() {
        let (stream, connection) = (STREAM_WINDOW.into(), CONNECTION_WINDOW.into());
        config.set_max_stream_window(stream);
        config.set_max_connection_window(connection);
        config.set_initial_max_data(connection);
        config.set_initial_max_stream_data_bidi_local(stream);
        config.set_initial_max_stream_data_bidi_remote(stream);
        config.set_initial_max_streams_bidi(run.concurrent_streams() as u64);
        config.enable_dplpmtud(true);
        config.set_send_udp_payload_size(payload(run));
        config.enable_pacing(false);
        config.set_congestion_control_algorithm(CongestionControlAlgorithm::Cubic);
        config.set_send_batch_size(BATCH);
    }
    Ok(Box::new(config))
}
