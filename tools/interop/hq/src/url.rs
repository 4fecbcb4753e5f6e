//! `https://host:port/path`, as much of it as the runner uses.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// One file of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    /// The path, with its leading slash.
    pub path: String,
}

impl Url {
    /// Reads `https://host[:port]/path`.
    ///
    /// # Errors
    /// A sentence that names the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not like https://host:port/path");
        let rest = text.strip_prefix("https://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').ok_or_else(wrong)?;
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or_else(wrong)?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = port.map_or(Ok(443), str::parse).map_err(|_| wrong())?;
        let plain = |c: char| c.is_ascii_graphic();
        if host.is_empty() || !host.chars().all(plain) || !path.chars().all(plain) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.into(),
            port,
            path: format!("/{path}"),
        })
    }

    /// Whether both are on one server.
    pub fn same_server(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// The server's address.
    ///
    /// # Errors
    /// The name leads to no address.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found = found.map_err(|e| format!("{}: {e}", self.host))?.next();
        found.ok_or_else(|| format!("{} has no address", self.host))
    }

    /// The name that the server's certificate must have: the host, or `localhost` where the URL has
    /// an address of the loopback.
    pub fn server_name(&self) -> &str {
        match self.host.parse::<IpAddr>() {
            Ok(ip) if ip.is_loopback() => "localhost",
            _ => &self.host,
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        let Self { host, port, path } = self;
        write!(f, "https://{open}{host}{close}:{port}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_and_print() {
        for text in [
            "https://a:1/x",
            "https://[::1]:4433/d/e",
            "https://127.0.0.1:9/",
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse("https://a/x").unwrap().port, 443);
        let v6 = Url::parse("https://[::1]:4433/").unwrap();
        assert_eq!(v6.resolve(), Ok("[::1]:4433".parse().unwrap()));
        assert_eq!(v6.server_name(), "localhost");
        assert_eq!(Url::parse("https://a.b:1/").unwrap().server_name(), "a.b");
    }

    #[test]
    fn what_is_no_url_is_told() {
        for text in [
            "http://a:1/x",
            "https://a:1",
            "https://a:b/x",
            "https://:1/x",
            "https://[::1:2/x",
            "https://a:1/x y",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
