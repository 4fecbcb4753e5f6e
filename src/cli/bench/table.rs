//! What an application keeps for each connection and for each stream of one, found fast.

use corelane::conn::ConnId;
use corelane::wire::StreamId;

/// One value for each connection.
#[derive(Debug)]
pub struct ByConn<T>(Vec<Option<(ConnId, T)>>);

impl<T> Default for ByConn<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByConn<T> {
    /// Adds a connection's value, replacing that of a connection of the same index, which is gone.
    pub fn insert(&mut self, conn: ConnId, value: T) {
        let index = conn.index() as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some((conn, value));
    }

    /// A connection's value.
    #[inline]
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut T> {
        match self.0.get_mut(conn.index() as usize)? {
            Some((id, value)) if *id == conn => Some(value),
            _ => None,
        }
    }

    /// Takes a connection's value out.
    pub fn remove(&mut self, conn: ConnId) -> Option<T> {
        let place = self.0.get_mut(conn.index() as usize)?;
        match place {
            Some((id, _)) if *id == conn => place.take().map(|(_, value)| value),
            _ => None,
        }
    }

    /// Every connection and its value.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut T)> {
        self.0.iter_mut().flatten().map(|(id, value)| (*id, value))
    }
}

/// One value for each stream of a connection. Streams come and go in order, so a table in which a
/// number has its place by its low bits, or the next free one behind, hardly ever has to search.
#[derive(Debug)]
pub struct ByStream<T> {
    /// A power of two, at most half of it taken; or nothing.
    places: Vec<Option<(StreamId, T)>>,
    len: usize,
    /// Entries that are not where they are looked for first.
    displaced: usize,
}

impl<T> Default for ByStream<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            len: 0,
            displaced: 0,
        }
    }
}

impl<T> ByStream<T> {
    /// Where a stream is looked for first.
    #[inline]
    fn home(&self, id: StreamId) -> usize {
        id.index() as usize & self.places.len().wrapping_sub(1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & self.places.len().wrapping_sub(1)
    }

    /// The place of a stream, or the one that it would get.
    #[inline]
    fn find(&self, id: StreamId) -> Result<usize, usize> {
        let mut at = self.home(id);
        while let Some(Some((there, _))) = self.places.get(at) {
            if *there == id {
                return Ok(at);
            }
            at = self.after(at);
        }
        Err(at)
    }

    /// A stream's value.
    #[inline]
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        let at = self.find(id).ok()?;
        self.places[at].as_mut().map(|(_, value)| value)
    }

    /// A stream's value, made when there is none.
    #[inline]
    pub fn get_or_insert_with(&mut self, id: StreamId, make: impl FnOnce() -> T) -> &mut T {
        let at = self.find(id).unwrap_or_else(|mut at| {
            if self.len * 2 >= self.places.len() {
                self.grow();
                at = self.find(id).unwrap_or_else(|free| free);
            }
            self.len += 1;
            self.displaced += usize::from(at != self.home(id));
            at
        });
        &mut self.places[at].get_or_insert_with(|| (id, make())).1
    }

    #[cold]
    fn grow(&mut self) {
        let mut larger = Vec::new();
        larger.resize_with((self.places.len() * 2).max(4), || None);
        self.displaced = 0;
        for entry in std::mem::replace(&mut self.places, larger) {
            if let Some((id, _)) = entry {
                let at = self.find(id).unwrap_or_else(|free| free);
                self.displaced += usize::from(at != self.home(id));
                self.places[at] = entry;
            }
        }
    }

    /// Takes a stream's value out.
    pub fn remove(&mut self, id: StreamId) -> Option<T> {
        let mut hole = self.find(id).ok()?;
        let (_, value) = self.places[hole].take()?;
        self.len -= 1;
        self.displaced -= usize::from(hole != self.home(id));
        if self.displaced == 0 {
            return Some(value);
        }
        // Whatever was pushed behind its place by the entry that is gone moves up.
        let mut at = self.after(hole);
        while let Some((id, _)) = &self.places[at] {
            let mask = self.places.len() - 1;
            let way = at.wrapping_sub(self.home(*id)) & mask;
            if way >= at.wrapping_sub(hole) & mask {
                self.displaced -= usize::from(hole == self.home(*id));
                self.places[hole] = self.places[at].take();
                hole = at;
            }
            at = self.after(at);
        }
        Some(value)
    }

    /// The streams that have one.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.places.iter().flatten().map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_found_whatever_came_last() {
        let mut streams = ByStream::default();
        for n in 0..10 {
            assert_eq!(*streams.get_or_insert_with(StreamId(n * 4), || n), n);
        }
        assert_eq!(*streams.get_or_insert_with(StreamId(0), || 99), 0);
        assert_eq!(streams.remove(StreamId(8)), Some(2));
        assert_eq!(streams.remove(StreamId(8)), None);
        assert_eq!(streams.get_mut(StreamId(36)), Some(&mut 9));
        assert_eq!(streams.get_mut(StreamId(4)), Some(&mut 1));
        assert_eq!(
            (streams.ids().count(), streams.get_mut(StreamId(99))),
            (9, None)
        );
    }

    #[test]
    fn a_table_is_what_a_map_is() {
        let mut rng = corelane::base::Rng::from_u64(7);
        let (mut table, mut map) = (ByStream::default(), std::collections::HashMap::new());
        for n in 0..20_000 {
            // Neighbours, other kinds of the same number, and numbers a power of two away.
            let id = StreamId(rng.below(40) + 256 * rng.below(3));
            if rng.below(2) == 0 {
                let value = *map.entry(id).or_insert(n);
                assert_eq!(*table.get_or_insert_with(id, || n), value);
            } else {
                assert_eq!(table.remove(id), map.remove(&id));
            }
            let id = StreamId(rng.below(40));
            assert_eq!(table.get_mut(id).copied(), map.get(&id).copied());
        }
        let mut ids: Vec<u64> = table.ids().map(|id| id.0).collect();
        let mut expected: Vec<u64> = map.keys().map(|id| id.0).collect();
        ids.sort_unstable();
        expected.sort_unstable();
        assert_eq!(ids, expected);
    }
}
