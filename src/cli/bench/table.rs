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

/// One value for each stream of a connection. Streams are few, or come and go in order, so a list
/// that looks at the last place first beats a hash; a connection has at most as many as the
/// transport permits.
#[derive(Debug)]
pub struct ByStream<T> {
    list: Vec<(StreamId, T)>,
    last: usize,
}

impl<T> Default for ByStream<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            last: 0,
        }
    }
}

impl<T> ByStream<T> {
    #[inline]
    fn find(&mut self, id: StreamId) -> Option<usize> {
        if self.list.get(self.last).is_some_and(|(at, _)| *at == id) {
            return Some(self.last);
        }
        self.last = self.list.iter().position(|(at, _)| *at == id)?;
        Some(self.last)
    }

    /// A stream's value.
    #[inline]
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut T> {
        let at = self.find(id)?;
        self.list.get_mut(at).map(|(_, value)| value)
    }

    /// A stream's value, made when there is none.
    #[inline]
    pub fn get_or_insert_with(&mut self, id: StreamId, make: impl FnOnce() -> T) -> &mut T {
        let at = self.find(id).unwrap_or_else(|| {
            self.list.push((id, make()));
            self.list.len() - 1
        });
        self.last = at;
        &mut self.list[at].1
    }

    /// Takes a stream's value out.
    pub fn remove(&mut self, id: StreamId) -> Option<T> {
        let at = self.find(id)?;
        Some(self.list.swap_remove(at).1)
    }

    /// The streams that have one.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.list.iter().map(|(id, _)| *id)
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
}
