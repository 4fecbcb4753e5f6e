//! QUIC versions and what two endpoints tell each other about them: Version Information (RFC 9368
//! §3), reserved versions (RFC 9000 §15), and what differs between version 1 and 2 on the wire
//! (RFC 9369 §3.2).
//!
//! `VersionInformation::decode` keeps of a peer's list only the versions known here, so its size
//! does not follow the peer's. Which version a connection takes is `conn`'s decision; keys are
//! `crypto`'s.

use super::error::TransportError;
use super::varint::Reader;
use crate::base::Rng;
use smallvec::SmallVec;

/// A version of QUIC that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// RFC 9000.
    V1,
    /// RFC 9369: version 1 with other numbers, so that nothing comes to depend on version 1's.
    V2,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// Its number on the wire.
    #[inline]
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => super::header::VERSION_1,
            Self::V2 => super::header::VERSION_2,
        }
    }

    /// The version of a number, if it is spoken here.
    #[inline]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            super::header::VERSION_1 => Some(Self::V1),
            super::header::VERSION_2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// Whether a version number is reserved, so that nobody ever speaks it (RFC 9000 §15).
pub const fn is_reserved(number: u32) -> bool {
    number & 0x0f0f_0f0f == 0x0a0a_0a0a
}

/// A reserved version number, which keeps peers from taking a list for fixed (RFC 9000 §6.3).
pub fn reserved(rng: &mut Rng) -> u32 {
    (rng.next_u64() as u32 & 0xf0f0_f0f0) | 0x0a0a_0a0a
}

/// The versions known here, each at most once.
pub type Versions = SmallVec<[Version; 2]>;

/// The version_information transport parameter (RFC 9368 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInformation {
    /// The version of the packets that carry it, as its sender sees it.
    pub chosen: u32,
    /// Of the versions that the sender lists, those that are known here, in its order.
    pub available: Versions,
}

impl VersionInformation {
    /// Appends the encoding, with one reserved version somewhere in the list.
    pub(super) fn encode(&self, out: &mut Vec<u8>, grease: &mut Rng) {
        out.extend_from_slice(&self.chosen.to_be_bytes());
        let mut list: SmallVec<[u32; 3]> = self.available.iter().map(|v| v.number()).collect();
        let at = grease.below(list.len() as u64 + 1) as usize;
        list.insert(at, reserved(grease));
        for number in list {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Reads the parameter's value.
    ///
    /// # Errors
    /// TRANSPORT_PARAMETER_ERROR where RFC 9368 §4 calls it a parsing failure: cut, a zero, or a
    /// client whose list lacks its own choice.
    pub(super) fn decode(from_client: bool, value: &[u8]) -> Result<Self, TransportError> {
        let invalid = TransportError::transport_parameter_error;
        let mut r = Reader::new(value);
        let cut = |_| invalid("version_information is cut");
        let chosen = r.u32().map_err(cut)?;
        let mut available = Versions::new();
        let (mut zero, mut listed) = (chosen == 0, false);
        while !r.is_empty() {
            let number = r.u32().map_err(cut)?;
            zero |= number == 0;
            listed |= number == chosen;
            if let Some(version) = Version::from_number(number)
                && !available.contains(&version)
            {
                available.push(version);
            }
        }
        if zero {
            return Err(invalid("version_information names version 0"));
        }
        if from_client && !listed {
            return Err(invalid("version_information lacks the chosen version"));
        }
        Ok(Self { chosen, available })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;
    use crate::wire::header::{VERSION_1, VERSION_2};

    fn bytes(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    #[test]
    fn it_comes_back_and_greases() {
        for seed in 0..50 {
            let info = VersionInformation {
                chosen: VERSION_2,
                available: Version::ALL.into_iter().collect(),
            };
            let mut out = Vec::new();
            info.encode(&mut out, &mut Rng::from_u64(seed));
            assert_eq!(out.len(), 16);
            let (numbers, _) = out[4..].as_chunks::<4>();
            let reserved = numbers
                .iter()
                .filter(|n| is_reserved(u32::from_be_bytes(**n)));
            assert_eq!(reserved.count(), 1);
            for from_client in [true, false] {
                assert_eq!(
                    VersionInformation::decode(from_client, &out),
                    Ok(info.clone())
                );
            }
        }
    }

    #[test]
    fn what_is_not_known_or_repeated_takes_no_room() {
        let mut numbers = vec![7, 7];
        numbers.extend([VERSION_2; 100]);
        numbers.extend(100..1000);
        let info = VersionInformation::decode(true, &bytes(&numbers)).expect("well formed");
        assert_eq!((info.chosen, info.available.len()), (7, 1));
        assert!(!info.available.spilled());
    }

    #[test]
    fn parsing_failures() {
        for (from_client, value) in [
            (true, bytes(&[])),
            (false, bytes(&[])),
            (true, bytes(&[VERSION_1])),
            (true, bytes(&[VERSION_1, VERSION_2])),
            (true, bytes(&[0, 0])),
            (false, bytes(&[0])),
            (false, bytes(&[VERSION_1, VERSION_1, 0])),
        ] {
            let e = VersionInformation::decode(from_client, &value).expect_err("a failure");
            assert_eq!(e.code, Code::TRANSPORT_PARAMETER_ERROR, "{value:02x?}");
        }
        let good = bytes(&[VERSION_1, VERSION_1]);
        for cut in [1, 2, 3, 5, 6, 7] {
            assert!(VersionInformation::decode(true, &good[..cut]).is_err());
        }
        // A server may list nothing, or not what it chose.
        assert!(VersionInformation::decode(false, &bytes(&[VERSION_1])).is_ok());
        assert!(VersionInformation::decode(false, &bytes(&[VERSION_1, VERSION_2])).is_ok());
    }

    #[test]
    fn numbers_and_names() {
        for version in Version::ALL {
            assert_eq!(Version::from_number(version.number()), Some(version));
            assert!(!is_reserved(version.number()));
        }
        assert_eq!(Version::from_number(0), None);
        let mut rng = Rng::from_u64(1);
        assert!((0..100).all(|_| is_reserved(reserved(&mut rng))));
    }
}
