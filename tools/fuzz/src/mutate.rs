//! Makes inputs from a corpus: bit and byte edits, and edits that know what QUIC's encodings are
//! made of (varints, lengths, whole pieces of other inputs).

use corelane::base::Rng;
use corelane::wire::Writer;
use corelane::wire::varint::MAX;

/// Numbers at which parsers change their mind.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    20,
    21,
    0x3f,
    0x40,
    0xff,
    0x3fff,
    0x4000,
    1200,
    0x3fff_ffff,
    0x4000_0000,
    1 << 60,
    (1 << 60) + 1,
    MAX,
];
const MAX_INPUT: usize = 4096;

/// A source of inputs that follows from its corpus and its generator.
pub struct Mutator {
    corpus: Vec<Vec<u8>>,
    rng: Rng,
    current: Vec<u8>,
}

impl Mutator {
    /// `corpus` may be empty.
    pub fn new(corpus: Vec<Vec<u8>>, rng: Rng) -> Self {
        Self {
            corpus,
            rng,
            current: Vec::new(),
        }
    }

    pub fn corpus(&self) -> &[Vec<u8>] {
        &self.corpus
    }

    /// The next input: one of the corpus after one to eight edits.
    pub fn next_input(&mut self) -> &[u8] {
        let pick = self.rng.below(self.corpus.len() as u64) as usize;
        self.current.clear();
        if let Some(base) = self.corpus.get(pick) {
            self.current.extend_from_slice(base);
        }
        for _ in 0..=self.rng.below(8) {
            self.edit();
        }
        self.current.truncate(MAX_INPUT);
        &self.current
    }

    fn edit(&mut self) {
        let len = self.current.len();
        let at = self.rng.below(len as u64 + 1) as usize;
        match self.rng.below(9) {
            0 => self.change(at, |b, rng| b ^ (1 << rng.below(8))),
            1 => self.change(at, |_, rng| rng.next_u64() as u8),
            // Small steps around lengths and counts.
            2 => self.change(at, |b, rng| {
                b.wrapping_add(rng.below(5) as u8).wrapping_sub(2)
            }),
            3 => self.current.truncate(at),
            4 => {
                let n = (self.rng.below(16) as usize).min(len - at);
                self.current.drain(at..at + n);
            }
            5 => {
                let bytes = self.rng.array::<8>();
                let n = self.rng.below(9) as usize;
                self.current.splice(at..at, bytes.into_iter().take(n));
            }
            6 => self.put_varint(at),
            7 => {
                let pick = self.rng.below(self.corpus.len() as u64) as usize;
                if let Some(other) = self.corpus.get(pick) {
                    let from = self.rng.below(other.len() as u64 + 1) as usize;
                    let to = from + self.rng.below((other.len() - from) as u64 + 1) as usize;
                    let piece = other[from..to].iter().copied();
                    self.current.splice(at..at, piece);
                }
            }
            _ => {
                let n = (self.rng.below(64) as usize).min(len - at);
                self.current.extend_from_within(at..at + n);
            }
        }
    }

    fn change(&mut self, at: usize, edit: impl FnOnce(u8, &mut Rng) -> u8) {
        if let Some(b) = self.current.get_mut(at) {
            *b = edit(*b, &mut self.rng);
        }
    }

    /// Puts an edge value at `at` as a varint, over a varint that is there or before it.
    fn put_varint(&mut self, at: usize) {
        let edge = EDGES[self.rng.below(EDGES.len() as u64) as usize];
        let value = edge
            .wrapping_add(self.rng.below(3))
            .wrapping_sub(1)
            .min(MAX);
        let mut buf = [0; 8];
        let mut w = Writer::new(&mut buf);
        w.varint(value);
        let over = match self.current.get(at) {
            Some(first) if self.rng.chance(0.7) => 1usize << (first >> 6),
            _ => 0,
        };
        let end = (at + over).min(self.current.len());
        let encoded = w.written().iter().copied();
        self.current.splice(at..end, encoded);
    }
}
