//! Which stream sends next: higher priority first, round robin among equals.
//!
//! A stream that has something to send is in one of two queues: [`Need::Nothing`] where what it
//! sends next costs no connection flow control credit (lost bytes, a bare FIN), [`Need::Credit`]
//! where it is new data. So whether anything can be sent now, and who is next, is O(1) even while
//! thousands of streams wait for MAX_DATA. A turn is [`QUANTUM`] bytes: long enough that a thousand
//! streams cost per packet what one does.

use super::lanes::Lanes;
use super::list::{Links, List};
use crate::base::PathId;
use crate::mem::prefetch_at;

/// Bytes that a stream sends before the next one of its priority has its turn.
pub(super) const QUANTUM: u32 = 16 * 1024;

/// What a stream needs to send what it sends next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Need {
    /// It has nothing to send.
    #[default]
    Idle,
    /// Room in a packet alone.
    Nothing,
    /// Connection flow control credit as well.
    Credit,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    priority: i8,
    need: Need,
    /// Which of the lanes it waits in; 0 for none.
    lane: u8,
}

impl Entry {
    /// Whether it waits where nearly all do.
    #[inline]
    fn is_usual(self) -> bool {
        self.priority == 0 && self.lane == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Level {
    priority: i8,
    list: List,
}

/// Streams that wait, by priority.
#[derive(Debug)]
pub(super) struct Levels {
    /// Those of the default priority, 0.
    usual: List,
    /// Other levels that are not empty, highest priority first.
    others: Vec<Level>,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            usual: List::EMPTY,
            others: Vec::new(),
        }
    }
}

impl Levels {
    /// The streams, in no order between priorities.
    pub(super) fn iter(&self, links: &Links) -> impl Iterator<Item = u32> {
        let others = self.others.iter().map(|l| &l.list);
        let lists = std::iter::once(&self.usual).chain(others);
        lists.flat_map(|list| list.iter(links))
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.usual.is_empty() && self.others.is_empty()
    }

    /// The highest priority at which streams wait, and the first of them.
    #[inline]
    pub(super) fn first(&self) -> Option<(i8, u32)> {
        match self.others.first() {
            Some(l) if l.priority > 0 || self.usual.is_empty() => {
                l.list.front().map(|slot| (l.priority, slot))
            }
            _ => self.usual.front().map(|slot| (0, slot)),
        }
    }

    #[inline]
    fn join(&mut self, links: &mut Links, slot: u32, priority: i8) {
        if priority == 0 {
            self.usual.push_back(links, slot);
        } else {
            self.join_other(links, slot, priority);
        }
    }

    fn join_other(&mut self, links: &mut Links, slot: u32, priority: i8) {
        let at = self.others.partition_point(|l| l.priority > priority);
        match self.others.get_mut(at) {
            Some(level) if level.priority == priority => level.list.push_back(links, slot),
            _ => {
                let mut list = List::EMPTY;
                list.push_back(links, slot);
                self.others.insert(at, Level { priority, list });
            }
        }
    }

    #[inline]
    fn leave(&mut self, links: &mut Links, slot: u32, priority: i8) {
        if priority == 0 {
            self.usual.unlink(links, slot);
        } else {
            self.leave_other(links, slot, priority);
        }
    }

    fn leave_other(&mut self, links: &mut Links, slot: u32, priority: i8) {
        let at = self.others.partition_point(|l| l.priority > priority);
        if let Some(level) = self.others.get_mut(at) {
            level.list.unlink(links, slot);
            if level.list.is_empty() {
                self.others.remove(at);
            }
        }
    }

    /// Moves `slot`, if it is the first of its priority, behind the others.
    fn rotate(&mut self, links: &mut Links, slot: u32, priority: i8) {
        let list = match priority {
            0 => Some(&mut self.usual),
            _ => {
                let mut others = self.others.iter_mut();
                others.find(|l| l.priority == priority).map(|l| &mut l.list)
            }
        };
        if let Some(list) = list.filter(|list| list.front() == Some(slot)) {
            list.rotate(links);
        }
    }
}

/// Streams of other priorities than the default, and those that wait for one path and no other.
#[derive(Debug, Default)]
struct Apart {
    free: Levels,
    paid: Levels,
    lanes: Option<Box<Lanes>>,
}

impl Apart {
    /// Where streams of that lane and need wait.
    fn levels(&mut self, lane: u8, need: Need) -> Option<&mut Levels> {
        let (free, paid) = match lane {
            0 => (&mut self.free, &mut self.paid),
            _ => self.lanes.as_deref_mut()?.levels(lane)?,
        };
        match need {
            Need::Idle => None,
            Need::Nothing => Some(free),
            Need::Credit => Some(paid),
        }
    }

    fn is_empty(&self, credit: bool) -> bool {
        self.free.is_empty() && (!credit || self.paid.is_empty())
    }
}

/// The streams of one connection that have something to send.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Those of the default priority that any path may take.
    free: List,
    paid: List,
    /// The others, if there ever were any.
    apart: Option<Box<Apart>>,
    links: Links,
    entries: Vec<Entry>,
    /// Whose turn it is, and what it has sent in it.
    turn: (u32, u32),
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            free: List::EMPTY,
            paid: List::EMPTY,
            apart: None,
            links: Links::default(),
            entries: Vec::new(),
            turn: (0, 0),
        }
    }
}

impl Schedule {
    /// Whether a stream can send, with or without credit.
    #[inline]
    pub(super) fn has_work(&self, credit: bool) -> bool {
        match self.apart.as_deref() {
            None => self.has_usual_work(credit),
            Some(apart) => self.has_work_beside(apart, credit),
        }
    }

    #[inline(never)]
    fn has_work_beside(&self, apart: &Apart, credit: bool) -> bool {
        let loose = || self.has_usual_work(credit) || !apart.is_empty(credit);
        match apart.lanes.as_deref() {
            None => loose(),
            Some(lanes) => lanes.has_work(credit) || (lanes.sees_others() && loose()),
        }
    }

    #[inline]
    fn has_usual_work(&self, credit: bool) -> bool {
        !self.free.is_empty() || (credit && !self.paid.is_empty())
    }

    /// Whether a stream waits that needs credit.
    #[inline]
    pub(super) fn needs_credit(&self) -> bool {
        let apart =
            |a: &Apart| !a.paid.is_empty() || a.lanes.as_deref().is_some_and(Lanes::needs_credit);
        !self.paid.is_empty() || self.apart.as_deref().is_some_and(apart)
    }

    /// Gives back memory; no stream may exist.
    pub(super) fn rest(&mut self) {
        self.links.rest();
        self.entries = Vec::new();
        self.apart = None;
    }

    /// Brings near what it begins with; a hint.
    #[inline]
    pub(super) fn warm(&self) {
        self.links.warm();
        prefetch_at(&self.entries, 0);
    }

    /// Where streams wait for one path and no other, if any ever did.
    #[inline]
    pub(super) fn lanes(&self) -> Option<&Lanes> {
        self.apart.as_deref()?.lanes.as_deref()
    }

    /// The same, to change.
    #[inline]
    pub(super) fn lanes_mut(&mut self) -> Option<&mut Lanes> {
        self.apart.as_deref_mut()?.lanes.as_deref_mut()
    }

    /// The same, made where there was none.
    pub(super) fn ensure_lanes(&mut self) -> &mut Lanes {
        let apart = self.apart.get_or_insert_default();
        apart.lanes.get_or_insert_default()
    }

    /// The next stream to send, its priority, and whether that takes no credit.
    pub(super) fn outlook(&self, credit: bool) -> Option<(u32, i8, bool)> {
        let slot = self.next(credit)?;
        let entry = self.entries.get(slot as usize)?;
        Some((slot, entry.priority, entry.need == Need::Nothing))
    }

    /// The streams with new data that go by that path and no other now.
    pub(super) fn waiting_for(&self, path: PathId) -> impl Iterator<Item = u32> {
        let lanes = self.lanes().into_iter();
        lanes.flat_map(move |l| l.waiting_for(path, &self.links))
    }

    /// The streams that have new data, in no order between priorities.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> {
        let pinned = self.lanes().into_iter();
        let pinned = pinned.flat_map(|l| l.waiting(&self.links));
        let loose = || {
            let apart = self.apart.as_deref().into_iter();
            let apart = apart.flat_map(|a| a.paid.iter(&self.links));
            self.paid.iter(&self.links).chain(apart)
        };
        let others = self.lanes().is_none_or(Lanes::sees_others);
        pinned.chain(others.then(loose).into_iter().flatten())
    }

    /// The next stream to send.
    #[inline]
    pub(super) fn next(&self, credit: bool) -> Option<u32> {
        match self.apart.as_deref() {
            None => {
                let paid = || self.paid.front().filter(|_| credit);
                self.free.front().or_else(paid)
            }
            Some(apart) => self.next_beside(apart, credit),
        }
    }

    /// The first of the highest priority: of several, one that is pinned, then one that needs no
    /// credit.
    #[inline(never)]
    fn next_beside(&self, apart: &Apart, credit: bool) -> Option<u32> {
        let lanes = apart.lanes.as_deref();
        let pinned = lanes.and_then(|lanes| lanes.first(credit));
        let usual = |list: &List| list.front().map(|slot| (0, slot));
        let free = [usual(&self.free), apart.free.first()];
        let paid = [usual(&self.paid), apart.paid.first()];
        let seen = lanes.is_none_or(Lanes::sees_others);
        let free = free.into_iter().flatten().filter(|_| seen);
        let paid = paid.into_iter().flatten().filter(|_| seen && credit);
        let all = pinned.into_iter().chain(free).chain(paid);
        let first = all.reduce(|best, next| if next.0 > best.0 { next } else { best });
        first.map(|(_, slot)| slot)
    }

    /// Prepares a new stream's slot.
    pub(super) fn add(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, Entry::default());
        }
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = Entry::default();
        }
    }

    /// States what `slot` needs from now on. A stream that had nothing to send joins at the end.
    #[inline]
    pub(super) fn set(&mut self, slot: u32, need: Need) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        if entry.need == need {
            return;
        }
        let old = std::mem::replace(entry, Entry { need, ..*entry });
        if !old.is_usual() {
            self.leave(slot, old);
            return self.join(slot, Entry { need, ..old });
        }
        if let Some((list, links)) = self.usual(old.need) {
            list.unlink(links, slot);
        }
        if let Some((list, links)) = self.usual(need) {
            list.push_back(links, slot);
        }
    }

    /// Moves `slot` to another lane, at the end of its level there.
    pub(super) fn move_to_lane(&mut self, slot: u32, lane: u8) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let old = std::mem::replace(entry, Entry { lane, ..*entry });
        self.leave(slot, old);
        self.join(slot, Entry { lane, ..old });
        if let Some(lanes) = self.lanes_mut() {
            lanes.leave(old.lane);
        }
    }

    /// The stream of `slot` sends nothing any more.
    #[inline]
    pub(super) fn end(&mut self, slot: u32) {
        self.set(slot, Need::Idle);
        if self.apart.is_some() {
            self.move_to_lane(slot, 0);
        }
    }

    /// Gives `slot` another priority; it joins at the end of its new level.
    pub(super) fn set_priority(&mut self, slot: u32, priority: i8) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let old = std::mem::replace(entry, Entry { priority, ..*entry });
        if old.priority != priority {
            self.leave(slot, old);
            self.join(slot, Entry { priority, ..old });
        }
    }

    /// Counts what `slot`, which was the next, has sent, and ends its turn when that was enough.
    #[inline]
    pub(super) fn charge(&mut self, slot: u32, bytes: u32) {
        if self.turn.0 != slot {
            self.turn = (slot, 0);
        }
        self.turn.1 = self.turn.1.saturating_add(bytes);
        if self.turn.1 >= QUANTUM {
            self.turn.1 = 0;
            self.end_turn(slot);
        }
    }

    fn end_turn(&mut self, slot: u32) {
        let Some(&entry) = self.entries.get(slot as usize) else {
            return;
        };
        if entry.is_usual() {
            if let Some((list, links)) = self.usual(entry.need)
                && list.front() == Some(slot)
            {
                list.rotate(links);
            }
        } else if let Some((levels, links)) = self.levels_apart(entry) {
            levels.rotate(links, slot, entry.priority);
        }
    }

    /// Where streams of the default priority with this need wait.
    #[inline]
    fn usual(&mut self, need: Need) -> Option<(&mut List, &mut Links)> {
        match need {
            Need::Idle => None,
            Need::Nothing => Some((&mut self.free, &mut self.links)),
            Need::Credit => Some((&mut self.paid, &mut self.links)),
        }
    }

    /// Where the others wait.
    fn levels_apart(&mut self, entry: Entry) -> Option<(&mut Levels, &mut Links)> {
        if entry.need == Need::Idle {
            return None;
        }
        let apart = self.apart.get_or_insert_default();
        let levels = apart.levels(entry.lane, entry.need)?;
        Some((levels, &mut self.links))
    }

    #[inline(never)]
    fn join(&mut self, slot: u32, entry: Entry) {
        if !entry.is_usual() {
            if let Some((levels, links)) = self.levels_apart(entry) {
                levels.join(links, slot, entry.priority);
            }
        } else if let Some((list, links)) = self.usual(entry.need) {
            list.push_back(links, slot);
        }
    }

    #[inline(never)]
    fn leave(&mut self, slot: u32, entry: Entry) {
        if !entry.is_usual() {
            if let Some((levels, links)) = self.levels_apart(entry) {
                levels.leave(links, slot, entry.priority);
            }
        } else if let Some((list, links)) = self.usual(entry.need) {
            list.unlink(links, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(slots: u32) -> Schedule {
        let mut s = Schedule::default();
        (0..slots).for_each(|slot| s.add(slot));
        s
    }

    #[test]
    fn equals_take_turns_of_a_quantum() {
        let mut s = schedule(3);
        (0..3).for_each(|slot| s.set(slot, Need::Credit));
        let mut order = Vec::new();
        for _ in 0..12 {
            let slot = s.next(true).unwrap();
            order.push(slot);
            s.charge(slot, QUANTUM / 2);
        }
        assert_eq!(order, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn higher_priority_goes_first_and_loss_goes_before_new_data() {
        let mut s = schedule(4);
        (0..4).for_each(|slot| s.set(slot, Need::Credit));
        s.set_priority(2, 5);
        s.set_priority(3, -5);
        assert_eq!(s.next(true), Some(2));
        s.set(1, Need::Nothing);
        // Still the higher priority; but without credit only slot 1 can go on.
        assert_eq!(s.next(true), Some(2));
        assert_eq!(s.next(false), Some(1));
        s.set(2, Need::Idle);
        assert_eq!(s.next(true), Some(1));
        s.set(1, Need::Idle);
        s.set(0, Need::Idle);
        assert_eq!(s.next(true), Some(3));
        assert!(s.has_work(true) && !s.has_work(false) && s.needs_credit());
        s.set(3, Need::Idle);
        assert!(!s.has_work(true) && !s.needs_credit());
        assert_eq!(s.next(true), None);
    }

    #[test]
    fn a_reused_slot_starts_with_the_default_priority() {
        let mut s = schedule(2);
        s.set_priority(0, 7);
        s.set(0, Need::Idle);
        s.add(0);
        s.set(1, Need::Credit);
        s.set(0, Need::Credit);
        assert_eq!(s.next(true), Some(1));
    }
}
