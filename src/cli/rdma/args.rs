//! The command line of `corelane rdma`. Flags of `bench` mean what perftest's mean.

use crate::cli::args::{TrustArgs, positive, server, shards};
use crate::cli::report::units;
use clap::{Args, Subcommand, ValueEnum};
use corelane::shard::lanes::{LaneConfig, ProviderChoice, Returns};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `corelane rdma`.
#[derive(Debug, Args)]
pub struct RdmaArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RdmaCommand,
}

/// Its commands.
#[derive(Debug, Subcommand)]
pub enum RdmaCommand {
    /// Serve lanes: messages come back, and every client has a region of its own
    Server(RdmaServerArgs),
    /// Use a lane: send TEXT, write OFFSET TEXT, read OFFSET LENGTH, atomic add OFFSET N,
    /// atomic swap OFFSET COMPARE SWAP, auto [N], quit
    Client(RdmaClientArgs),
    /// Measure with both sides in this process
    Bench(RdmaBenchArgs),
    /// Show what all shards of a server have of its device, and whose it is, as JSON
    Status(RdmaStatusArgs),
}

/// Whose queue pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProviderName {
    /// The kernel's where a device has the address, else RoCE v2 in user space
    #[default]
    Auto,
    /// A device of the kernel's
    Verbs,
    /// RoCE v2 in user space
    Roce,
}

impl From<ProviderName> for ProviderChoice {
    fn from(name: ProviderName) -> Self {
        match name {
            ProviderName::Auto => Self::Auto,
            ProviderName::Verbs => Self::Verbs,
            ProviderName::Roce => Self::Roce,
        }
    }
}

/// Flags about who provides RDMA.
#[derive(Clone, Debug, Args)]
pub struct ProviderArgs {
    /// Whose queue pairs lanes run over
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t)]
    pub rdma_provider: ProviderName,
    /// A device of the kernel's, by its name; without one, the first that has the address
    #[arg(short = 'd', long, visible_alias = "ib-dev", value_name = "NAME")]
    #[arg(conflicts_with = "roce_port")]
    pub rdma_device: Option<String>,
    /// In user space, the UDP port of the first shard, the next ones having the next ports; 0 lets
    /// the system choose [default: 4791 if it is free, which devices of the kernel's insist on]
    #[arg(long, value_name = "PORT")]
    pub roce_port: Option<u16>,
    /// Over QUIC only
    #[arg(long, conflicts_with_all = ["rdma_device", "roce_port", "rdma_provider"])]
    pub no_rdma: bool,
    /// A lane that fell back to QUIC stays there, instead of asking for another queue pair
    #[arg(long, conflicts_with = "no_rdma")]
    pub no_returns: bool,
    /// Long writes go as one message each, instead of packet by packet where both ends are in user
    /// space
    #[arg(long, conflicts_with = "no_rdma")]
    pub no_split_writes: bool,
    /// How long the other end may take for a step of a lane's opening and of its end
    #[arg(long, value_name = "TIME", default_value = "10")]
    #[arg(value_parser = units::parse_duration)]
    pub patience: Duration,
}

impl ProviderArgs {
    /// Lanes as these flags have them.
    pub fn lanes(&self) -> LaneConfig {
        LaneConfig {
            patience: self.patience,
            returns: (!self.no_returns).then(Returns::default),
            splits_writes: !self.no_split_writes,
            ..LaneConfig::default()
        }
    }
}

/// `corelane rdma server`.
#[derive(Debug, Args)]
pub struct RdmaServerArgs {
    /// Address and port of the bootstrap; port 0 lets the system choose
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:4433")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub provider: ProviderArgs,
    /// The server's certificate chain, PEM; without it one is made and its fingerprint printed
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Take clients alone that show a certificate of these authorities, PEM
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Shards to run
    #[arg(long, value_name = "N", value_parser = shards, default_value_t = 1)]
    pub shards: usize,
}

/// What a client shows of itself.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The client's certificate chain, PEM, for a server that asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

/// `corelane rdma client`.
#[derive(Debug, Args)]
pub struct RdmaClientArgs {
    /// The server's address or name, and its port if that is not 4433
    #[arg(value_parser = server)]
    pub server: SocketAddr,
    /// Fail where the lane would run over QUIC
    #[arg(long, conflicts_with = "no_rdma")]
    pub require_rdma: bool,
    /// Commands, each one argument in quotes; lines of standard input without any
    pub commands: Vec<String>,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub show: ShowArgs,
    #[command(flatten)]
    pub provider: ProviderArgs,
}

/// `corelane rdma status`.
#[derive(Debug, Args)]
pub struct RdmaStatusArgs {
    /// The server's address or name, and its port if that is not 4433
    #[arg(value_parser = server)]
    pub server: SocketAddr,
    #[command(flatten)]
    pub trust: TrustArgs,
    #[command(flatten)]
    pub show: ShowArgs,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Messages in one direction
    Send,
    /// RDMA WRITE
    Write,
    /// RDMA READ
    Read,
    /// A message there and back, one at a time: whole round trips, of which perftest shows half
    Latency,
    /// Clients that come, one after another, and stay: time and memory of each
    Setup,
    /// Several clients that write at once: what they move together
    Clients,
}

/// `corelane rdma bench`.
#[derive(Debug, Args)]
pub struct RdmaBenchArgs {
    /// What to measure
    #[arg(value_enum)]
    pub measure: Measure,
    /// Bytes of a message or operation
    #[arg(short, long, value_name = "SIZE", value_parser = units::parse_size)]
    pub size: Option<u64>,
    /// How many, instead of for a time; for setup and clients the most of them, 1000 and 64
    #[arg(short = 'n', long, value_name = "N", value_parser = positive)]
    pub iters: Option<usize>,
    /// How long
    #[arg(short = 'D', long, value_name = "TIME", default_value = "3")]
    #[arg(value_parser = units::parse_duration)]
    pub duration: Duration,
    /// How long before that
    #[arg(short = 'O', long, value_name = "TIME", default_value = "0.3")]
    #[arg(value_parser = units::parse_duration)]
    pub omit: Duration,
    /// Under way at a time: at most 256 messages, or 64 operations; 1 for latency
    #[arg(short = 't', long, value_name = "N", value_parser = positive, default_value_t = 16)]
    pub tx_depth: usize,
    /// Path MTU: 256, 512, 1024, 2048 or 4096
    #[arg(short = 'm', long, value_name = "BYTES", default_value_t = 4096)]
    pub mtu: usize,
    /// The address to measure at [default: the device's; in user space ::1, or 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub ip: Option<IpAddr>,
    /// Cores of the server's shard and the client's; by default those of this process
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Keep both shards turning instead of sleeping
    #[arg(long)]
    pub spin: bool,
    /// Sleep until a completion comes, at once; without, after a moment of polling
    #[arg(short, long, conflicts_with = "spin")]
    pub events: bool,
    #[command(flatten)]
    pub provider: ProviderArgs,
    /// Print the report as JSON
    #[arg(short = 'J', long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        provider: ProviderArgs,
    }

    fn lanes(flags: &[&str]) -> Result<LaneConfig, clap::Error> {
        let words = ["corelane"].iter().chain(flags);
        Flags::try_parse_from(words).map(|flags| flags.provider.lanes())
    }

    #[test]
    fn lanes_come_back_unless_the_flags_say_otherwise() {
        let returns = |flags: &[&str]| lanes(flags).ok().map(|lanes| lanes.returns);
        assert_eq!(returns(&[]), Some(Some(Returns::default())));
        assert_eq!(returns(&["--no-returns"]), Some(None));
        // A lane without a queue pair has none to come back to.
        assert_eq!(returns(&["--no-returns", "--no-rdma"]), None);
    }

    #[test]
    fn long_writes_are_split_unless_the_flag_says_otherwise() {
        let splits = |flags: &[&str]| lanes(flags).ok().map(|lanes| lanes.splits_writes);
        assert_eq!(splits(&[]), Some(true));
        assert_eq!(splits(&["--no-split-writes"]), Some(false));
        assert_eq!(splits(&["--no-split-writes", "--no-rdma"]), None);
    }

    #[test]
    fn the_other_end_may_take_as_long_as_the_flags_say() {
        let patience = lanes(&["--patience", "2m"]).ok().map(|l| l.patience);
        assert_eq!(patience, Some(Duration::from_secs(120)));
    }
}
