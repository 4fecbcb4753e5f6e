//! How a connection uses several paths.
//!
//! Whether it has several is [`TransportConfig::max_paths`](super::super::TransportConfig), and
//! whether their congestion control is coupled is its `congestion`: CUBIC, NewReno and BBR run on
//! each path alone, LIA, OLIA and BALIA look at all of them.

use super::AddressConfig;
use super::hooks::PathControllers;
use crate::path::duplicate::DuplicationConfig;
use crate::path::failure::FailureConfig;
use crate::path::reinject::ReinjectionConfig;
use crate::path::schedule::SchedulerKind;

/// How a connection uses several paths; one with a single path has no use for it.
///
/// ```
/// use corelane::conn::TransportConfig;
/// use corelane::path::schedule::SchedulerKind;
///
/// let mut transport = TransportConfig::default();
/// transport.max_paths = 4;
/// transport.multipath.scheduler = SchedulerKind::Ecf;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MultipathConfig {
    /// Which path each train takes. Default: the one on which it arrives first.
    pub scheduler: SchedulerKind,
    /// When a path counts as failed, and when it is given up.
    pub failure: FailureConfig,
    /// What is sent on several paths at once. Default nothing.
    pub duplication: Option<DuplicationConfig>,
    /// What is sent again on another path before it counts as lost. Default nothing, but what is
    /// in flight on a path whose probe timeout fires.
    pub reinjection: Option<ReinjectionConfig>,
    /// Which addresses of ours the peer may be told, and that it may tell us its own; `None` tells
    /// and hears none. Default `None`.
    pub addresses: Option<AddressConfig>,
    /// A client opens paths by itself until it has so many, the first included, between the
    /// addresses of this host and those of the server, and gives up those whose address goes. The
    /// async face and [`AutoPaths`](crate::shard::auto::AutoPaths) follow the host's addresses; who
    /// drives a connection alone tells it
    /// ([`Connection::set_local_addresses`](super::super::Connection::set_local_addresses)).
    /// Default `None`: it opens none.
    pub auto_paths: Option<u32>,
    /// Who sees and decides what an embedder wants to see and decide itself. Default nobody.
    pub controller: Option<PathControllers>,
}
