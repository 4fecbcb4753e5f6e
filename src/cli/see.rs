//! What makes a run visible: qlog files, TLS secrets, counters for Prometheus. All off unless
//! flags, or the environment variables that tools of the trade set, ask for them.

use super::args::SeeArgs;
use super::exporter::Exporter;
use super::{Failure, output};
use corelane::api::keylog;
use corelane::shard::engine::EngineConfig;
use corelane::shard::metrics::MetricsReader;
use corelane::shard::qlog::Qlog;
use rustls::{ClientConfig, KeyLog, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// What was asked for.
pub struct Seeing {
    qlog: Option<Qlog>,
    key_log: Option<Arc<dyn KeyLog>>,
    exporter: Option<Exporter>,
}

impl Seeing {
    /// Opens what flags or environment ask for; flags come first.
    pub fn begin(args: &SeeArgs) -> Result<Self, Failure> {
        let qlog = match &args.qlog {
            Some(dir) => Qlog::to_dir(dir)
                .map(Some)
                .map_err(|e| Failure::file("write to", dir, e))?,
            None => Qlog::from_env()
                .map_err(|e| Failure::file("write to", Path::new("the directory QLOGDIR"), e))?,
        };
        let key_log = match &args.keylog {
            Some(file) => keylog::to_file(file)
                .map(Some)
                .map_err(|e| Failure::file("write", file, e))?,
            None => keylog::from_env()
                .map_err(|e| Failure::file("write", Path::new("the file SSLKEYLOGFILE"), e))?,
        };
        let exporter = args.metrics.map(Exporter::start).transpose()?;
        if let Some(exporter) = &exporter {
            output::tell(&format!("metrics at http://{}/metrics", exporter.addr()));
        }
        Ok(Self {
            qlog,
            key_log,
            exporter,
        })
    }

    /// Has an engine's connections logged.
    pub fn engine(&self, config: &mut EngineConfig) {
        if let Some(qlog) = &self.qlog {
            Arc::make_mut(&mut config.transport).observers = Some(qlog.observers());
        }
    }

    /// Has a client's secrets logged.
    pub fn client(&self, tls: &mut Arc<ClientConfig>) {
        if let Some(log) = &self.key_log {
            Arc::make_mut(tls).key_log = log.clone();
        }
    }

    /// Has a server's secrets logged.
    pub fn server(&self, tls: &mut Arc<ServerConfig>) {
        if let Some(log) = &self.key_log {
            Arc::make_mut(tls).key_log = log.clone();
        }
    }

    /// Shows the counters of these engines, and of no others.
    pub fn show(&self, engines: Vec<MetricsReader>) {
        if let Some(exporter) = &self.exporter {
            exporter.show(engines);
        }
    }

    /// Waits until log files are complete, once the engines have ended.
    pub fn end(&self) {
        let Some(qlog) = &self.qlog else { return };
        qlog.flush();
        let stats = qlog.stats();
        if stats.dropped_events > 0 || stats.failed_writes > 0 {
            output::complain(&format!(
                "qlog files in {} are not complete: {} events were dropped, {} writes failed",
                qlog.dir().display(),
                stats.dropped_events,
                stats.failed_writes
            ));
        }
    }
}
