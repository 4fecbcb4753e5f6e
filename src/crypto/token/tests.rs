//! Tokens: what opens them, and everything that does not.

use super::*;

const NOW: u64 = 1_700_000_000;
const LIFETIMES: Lifetimes = Lifetimes {
    retry: Duration::from_secs(10),
    new_token: Duration::from_secs(1000),
};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn cid(len: usize) -> ConnectionId {
    ConnectionId::new(&[0xc1; 20][..len]).unwrap()
}

fn retry(key: &TokenKey, at: &str) -> Vec<u8> {
    let mut token = Vec::new();
    let (odcid, scid) = (cid(18), cid(8));
    key.retry_token(
        &mut Rng::from_u64(1),
        addr(at),
        &odcid,
        &scid,
        NOW,
        &mut token,
    );
    token
}

fn new_token(key: &TokenKey, ip: &str) -> Vec<u8> {
    let mut token = Vec::new();
    key.new_token(&mut Rng::from_u64(1), ip.parse().unwrap(), NOW, &mut token);
    token
}

fn open(key: &TokenKey, token: &[u8], at: &str, now: u64) -> Result<Token, TokenError> {
    key.open(token, addr(at), now, LIFETIMES)
}

const RETRY: Result<Token, TokenError> = Err(TokenError::Expired { retry: true });

#[test]
fn a_retry_token_carries_its_connection_ids() {
    let key = TokenKey::new([1; 32]);
    for at in ["192.0.2.1:443", "[2001:db8::1]:443"] {
        let token = retry(&key, at);
        assert_eq!(
            open(&key, &token, at, NOW + 10),
            Ok(Token::Retry {
                odcid: cid(18),
                retry_scid: cid(8)
            })
        );
        assert_eq!(open(&key, &token, at, NOW + 11), RETRY);
        assert_eq!(open(&key, &token, at, NOW - 11), RETRY);
        for other in ["192.0.2.1:444", "192.0.2.2:443", "[2001:db8::2]:443"] {
            let other = open(&key, &token, other, NOW);
            assert_eq!(other, Err(TokenError::OtherAddress { retry: true }));
        }
    }
}

#[test]
fn a_new_token_is_good_for_any_port() {
    let key = TokenKey::new([1; 32]);
    let token = new_token(&key, "192.0.2.1");
    for at in ["192.0.2.1:1", "192.0.2.1:65535", "[::ffff:192.0.2.1]:1"] {
        let opened = open(&key, &token, at, NOW + 1000);
        assert_eq!(opened, Ok(Token::NewToken { issued: NOW }));
    }
    assert_eq!(
        open(&key, &token, "192.0.2.1:1", NOW + 1001),
        Err(TokenError::Expired { retry: false })
    );
    assert_eq!(
        open(&key, &token, "192.0.2.2:1", NOW),
        Err(TokenError::OtherAddress { retry: false })
    );
}

#[test]
fn every_bit_and_every_length_counts() {
    let key = TokenKey::new([1; 32]);
    for token in [retry(&key, "192.0.2.1:1"), new_token(&key, "192.0.2.1")] {
        assert!(open(&key, &token, "192.0.2.1:1", NOW).is_ok());
        for bit in 0..token.len() * 8 {
            let mut flipped = token.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let opened = open(&key, &flipped, "192.0.2.1:1", NOW);
            assert_eq!(opened, Err(TokenError::Unreadable), "bit {bit}");
        }
        for len in 0..token.len() {
            let opened = open(&key, &token[..len], "192.0.2.1:1", NOW);
            assert_eq!(opened, Err(TokenError::Unreadable), "{len} bytes");
        }
        let longer = [token.as_slice(), &[0; 4096]].concat();
        for len in token.len() + 1..=longer.len() {
            let opened = open(&key, &longer[..len], "192.0.2.1:1", NOW);
            assert_eq!(opened, Err(TokenError::Unreadable), "{len} bytes");
        }
    }
}

#[test]
fn the_longest_token_has_the_stated_length() {
    let (key, cid) = (TokenKey::new([1; 32]), cid(20));
    let at = addr("[2001:db8::1]:65535");
    let mut token = Vec::new();
    key.retry_token(&mut Rng::from_u64(1), at, &cid, &cid, NOW, &mut token);
    assert_eq!(token.len(), MAX_TOKEN_LEN);
    assert!(key.open(&token, at, NOW, LIFETIMES).is_ok());
}

#[test]
fn a_rotated_key_is_good_once_more() {
    let mut key = TokenKey::new([1; 32]);
    let token = retry(&key, "192.0.2.1:1");
    let is_open = |key: &TokenKey| open(key, &token, "192.0.2.1:1", NOW).is_ok();
    key.rotate([2; 32]);
    assert!(is_open(&key));
    let newer = retry(&key, "192.0.2.1:1");
    assert!(open(&key, &newer, "192.0.2.1:1", NOW).is_ok());
    key.rotate([3; 32]);
    assert!(!is_open(&key));
    assert!(open(&key, &newer, "192.0.2.1:1", NOW).is_ok());
    assert!(!is_open(&TokenKey::new([9; 32])));
}

#[test]
fn two_tokens_for_one_client_have_nothing_in_common() {
    let key = TokenKey::new([1; 32]);
    let mut rng = Rng::from_u64(1);
    let mut tokens = [Vec::new(), Vec::new()];
    for token in &mut tokens {
        key.new_token(&mut rng, Ipv4Addr::LOCALHOST.into(), NOW, token);
    }
    let same = tokens[0].iter().zip(&tokens[1]).filter(|(a, b)| a == b);
    // The generation byte, and what chance allows in the other 46.
    assert!(same.count() < 8);
}
