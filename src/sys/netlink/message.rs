//! What the kernel says on a route netlink socket, read from bytes.
//!
//! Pure, and content with any input: a message or an attribute that is cut ends the reading there,
//! one that is not known is passed over. Of links and addresses it takes what paths need.

use crate::base::{AddressState, LocalAddress};
use std::net::IpAddr;

/// Bytes of a message's header.
pub(super) const HEADER: usize = 16;
/// Messages and attributes begin at multiples of this.
const ALIGN: usize = 4;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// What it says.
    pub(super) body: Body<'a>,
    /// The sequence number of the request that it answers.
    pub(super) seq: u32,
    /// The dump that it belongs to was overtaken by a change and is to be repeated.
    pub(super) is_interrupted: bool,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// A link is there; `is_up` when it can carry packets.
    Link {
        index: u32,
        name: &'a [u8],
        is_up: bool,
    },
    /// A link is gone.
    LinkGone { index: u32 },
    /// An address is there.
    Address { address: LocalAddress, flags: u32 },
    /// An address is gone.
    AddressGone { address: LocalAddress },
    /// The end of a dump.
    Done,
    /// A request failed with this error number.
    Failed(i32),
    /// Messages were lost.
    Overrun,
    /// Something else.
    Other,
}

/// The messages in what one read gave.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(rest, 0)? as usize;
        let message = rest.get(..len).filter(|m| m.len() >= HEADER)?;
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Message {
            body: body(message).unwrap_or(Body::Other),
            seq: u32_at(message, 8)?,
            is_interrupted: u16_at(message, 6)? & libc::NLM_F_DUMP_INTR as u16 != 0,
        })
    })
}

fn body(message: &[u8]) -> Option<Body<'_>> {
    let payload = message.get(HEADER..)?;
    match u16_at(message, 4)? {
        libc::RTM_NEWLINK => link(payload),
        libc::RTM_DELLINK => match payload.first()? {
            0 => Some(Body::LinkGone {
                index: u32_at(payload, 4)?,
            }),
            _ => None,
        },
        libc::RTM_NEWADDR => {
            let (address, flags) = address(payload)?;
            Some(Body::Address { address, flags })
        }
        libc::RTM_DELADDR => {
            let (address, _) = address(payload)?;
            Some(Body::AddressGone { address })
        }
        t if t == libc::NLMSG_DONE as u16 => Some(Body::Done),
        t if t == libc::NLMSG_OVERRUN as u16 => Some(Body::Overrun),
        // Zero is an acknowledgement.
        t if t == libc::NLMSG_ERROR as u16 => match u32_at(payload, 0)?.cast_signed() {
            0 => None,
            e => Some(Body::Failed(e.wrapping_neg())),
        },
        _ => None,
    }
}

/// `struct ifinfomsg`: family, type, index, flags, change mask.
fn link(payload: &[u8]) -> Option<Body<'_>> {
    // Other families tell of a bridge's ports and of per-family settings.
    if *payload.first()? != libc::AF_UNSPEC as u8 {
        return None;
    }
    let flags = u32_at(payload, 8)?;
    let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as u32;
    let name = attributes(payload.get(16..)?)
        .find(|(ty, _)| *ty == libc::IFLA_IFNAME)
        .map_or(&[][..], |(_, value)| value);
    Some(Body::Link {
        index: u32_at(payload, 4)?,
        name: name.split(|b| *b == 0).next().unwrap_or_default(),
        is_up: flags & wanted == wanted,
    })
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn address(payload: &[u8]) -> Option<(LocalAddress, u32)> {
    let family = i32::from(*payload.first()?);
    let mut flags = u32::from(*payload.get(2)?);
    let interface = u32_at(payload, 4)?;
    let (mut ip, mut local) = (None, None);
    for (ty, value) in attributes(payload.get(8..)?) {
        match ty {
            libc::IFA_ADDRESS => ip = self::ip(family, value),
            libc::IFA_LOCAL => local = self::ip(family, value),
            // The same flags and those that no longer fit in a byte.
            libc::IFA_FLAGS => flags = u32_at(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    // On a link between two, the other attribute names the far end.
    let ip = local.or(ip)?;
    let state = if flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0 {
        // An optimistic address may be used as it is (RFC 4429 §3.3).
        match flags & (libc::IFA_F_OPTIMISTIC | libc::IFA_F_DADFAILED) {
            libc::IFA_F_OPTIMISTIC => AddressState::Preferred,
            _ => AddressState::Tentative,
        }
    } else if flags & libc::IFA_F_DEPRECATED != 0 {
        AddressState::Deprecated
    } else {
        AddressState::Preferred
    };
    let address = LocalAddress {
        ip,
        interface,
        state,
    };
    Some((address, flags))
}

fn ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        libc::AF_INET6 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

/// `struct rtattr` and its value, one behind the other.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let ty = u16_at(rest, 2)?;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((ty, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A request for all links or all addresses.
pub(super) fn dump_request(ty: u16, seq: u32) -> [u8; HEADER + 16] {
    let mut out = [0; HEADER + 16];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let (head, _) = out.split_at_mut(12);
    head[..4].copy_from_slice(&(HEADER as u32 + 16).to_ne_bytes());
    head[4..6].copy_from_slice(&ty.to_ne_bytes());
    head[6..8].copy_from_slice(&flags.to_ne_bytes());
    head[8..].copy_from_slice(&seq.to_ne_bytes());
    out
}
