//! Every device object of the process with its owner.
//!
//! An object is here from its creation to its removal, because what names it, a [`Tracked`], takes
//! it out when it is dropped. The lock is taken when objects are made and removed and when someone
//! looks, never on the data path.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Whose an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A shard's, for all its clients.
    Shard(usize),
    /// A client's, by its number.
    Client(u64),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shard(n) => write!(f, "shard {n}"),
            Self::Client(n) => write!(f, "client {n}"),
        }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A protection domain.
    Domain,
    /// A memory region.
    Region,
    /// A completion queue.
    CompletionQueue,
    /// A shared receive queue.
    SharedReceiveQueue,
    /// A queue pair.
    QueuePair,
}

/// An object of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// The shard whose device has it.
    pub shard: usize,
    /// Whose it is.
    pub owner: Owner,
    /// What it is.
    pub kind: ObjectKind,
    /// Bytes of a region, entries of a queue, the number of a queue pair.
    pub detail: u64,
}

#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<u64, Object>,
    next: u64,
    clients: u64,
}

/// The registry of a process, or of a part of it. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    table: Arc<Mutex<Table>>,
    shard: usize,
}

impl Registry {
    fn with<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same registry, for the objects of this shard.
    #[must_use]
    pub fn of_shard(&self, shard: usize) -> Self {
        let table = self.table.clone();
        Self { table, shard }
    }

    /// A number for a new client, never used before.
    pub fn client(&self) -> u64 {
        self.with(|t| {
            t.clients += 1;
            t.clients
        })
    }

    /// Enters an object.
    pub fn enter(&self, owner: Owner, kind: ObjectKind, detail: u64) -> Tracked {
        let object = Object {
            shard: self.shard,
            owner,
            kind,
            detail,
        };
        let key = self.with(|t| {
            t.next += 1;
            t.objects.insert(t.next, object);
            t.next
        });
        Tracked {
            registry: self.clone(),
            key,
        }
    }

    /// Everything, in order of creation.
    pub fn objects(&self) -> Vec<Object> {
        self.with(|t| t.objects.values().copied().collect())
    }

    /// Objects there are.
    pub fn len(&self) -> usize {
        self.with(|t| t.objects.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An object's place in the registry, for as long as it lives.
#[derive(Debug)]
pub struct Tracked {
    registry: Registry,
    key: u64,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.registry.with(|t| t.objects.remove(&self.key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_listed_with_their_owners_until_they_go() {
        let registry = Registry::default();
        let client = Owner::Client(registry.client());
        let domain = registry.enter(client, ObjectKind::Domain, 0);
        let third = registry.of_shard(3);
        let queue = third.enter(Owner::Shard(3), ObjectKind::CompletionQueue, 64);
        assert_eq!(registry.objects()[1].shard, 3);
        let listed: Vec<String> = registry
            .objects()
            .iter()
            .map(|o| o.owner.to_string())
            .collect();
        assert_eq!(listed, ["client 1", "shard 3"]);
        drop(domain);
        assert_eq!(registry.objects()[0].detail, 64);
        drop(queue);
        assert!(registry.is_empty() && registry.client() == 2);
    }
}
