//! The command line that all endpoints have in common.

use crate::{Case, Url};
use std::net::SocketAddr;
use std::path::PathBuf;

/// How an endpoint is called.
pub const USAGE: &str = "\
usage: server --listen ADDR --root DIR --cert PEM --key PEM [--retry]
       client --out DIR (--ca PEM | --insecure) [--bind ADDR] URL...

Speaks hq-interop. From the environment: TESTCASE, REQUESTS (the client's URLs), SSLKEYLOGFILE,
QLOGDIR, and PREFERRED_ADDRESS (what a server offers its clients to move to).";

/// An endpoint's role and its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Args {
    /// A server.
    Server(ServerArgs),
    /// A client.
    Client(ClientArgs),
    /// The user asked how.
    Help,
}

/// A server's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerArgs {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The directory that is served.
    pub root: PathBuf,
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Sends Retry to clients without a token.
    pub retry: bool,
    /// The case.
    pub case: Case,
    /// The address to offer as the preferred one.
    pub preferred: Option<SocketAddr>,
}

/// A client's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientArgs {
    /// Where files go.
    pub out: PathBuf,
    /// The authority to trust; `None` to trust everybody.
    pub ca: Option<PathBuf>,
    /// The local address.
    pub bind: Option<SocketAddr>,
    /// What to fetch; at least one, all from one server.
    pub urls: Vec<Url>,
    /// The case.
    pub case: Case,
}

impl ClientArgs {
    /// The URLs in the order and grouping in which connections ask for them: each its own
    /// connection, the first before the rest, or all on one.
    pub fn batches(&self) -> Vec<&[Url]> {
        match self.case {
            Case::MultiConnect => self.urls.chunks(1).collect(),
            Case::Resumption | Case::ZeroRtt if self.urls.len() > 1 => {
                let (first, rest) = self.urls.split_at(1);
                vec![first, rest]
            }
            _ => vec![&self.urls],
        }
    }
}

/// Reads an endpoint's arguments, program name apart, and its environment.
///
/// # Errors
/// `Ok(None)` for a case that nobody knows, which is exit code 127; a sentence for a wrong call.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Args>, String> {
    let mut args = args.into_iter();
    let role = args.next().ok_or(USAGE)?;
    if matches!(role.as_str(), "-h" | "--help" | "help") {
        return Ok(Some(Args::Help));
    }
    let case = match env("TESTCASE").filter(|c| !c.is_empty()) {
        None => Case::Transfer,
        Some(name) => match Case::named(&name) {
            Some(case) => case,
            None => return Ok(None),
        },
    };
    let given = Given::read(args)?;
    match role.as_str() {
        "server" => given.server(case, &env).map(|a| Some(Args::Server(a))),
        "client" => given.client(case, &env).map(|a| Some(Args::Client(a))),
        other => Err(format!("`{other}` is neither server nor client\n{USAGE}")),
    }
}

#[derive(Default)]
struct Given {
    values: Vec<(String, String)>,
    flags: Vec<String>,
    rest: Vec<String>,
}

impl Given {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut given = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--listen" | "--root" | "--cert" | "--key" | "--out" | "--ca" | "--bind" => {
                    let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
                    given.values.push((arg, value));
                }
                "--retry" | "--insecure" => given.flags.push(arg),
                flag if flag.starts_with('-') => {
                    return Err(format!("unknown flag {flag}\n{USAGE}"));
                }
                _ => given.rest.push(arg),
            }
        }
        Ok(given)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.values.iter().rev().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str())
    }

    fn need(&self, name: &str) -> Result<&str, String> {
        self.get(name)
            .ok_or_else(|| format!("{name} is missing\n{USAGE}"))
    }

    fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f == name)
    }

    fn server(
        &self,
        case: Case,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<ServerArgs, String> {
        let preferred = env("PREFERRED_ADDRESS").map(|a| addr("PREFERRED_ADDRESS", &a));
        Ok(ServerArgs {
            listen: addr("--listen", self.need("--listen")?)?,
            root: self.need("--root")?.into(),
            cert: self.need("--cert")?.into(),
            key: self.need("--key")?.into(),
            retry: self.has("--retry") || case == Case::Retry,
            case,
            preferred: preferred.transpose()?,
        })
    }

    fn client(
        &self,
        case: Case,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<ClientArgs, String> {
        let ca = self.get("--ca").map(PathBuf::from);
        if ca.is_some() == self.has("--insecure") {
            return Err("give either --ca PEM or --insecure".into());
        }
        let requests = env("REQUESTS").unwrap_or_default();
        let urls = self.rest.iter().map(String::as_str);
        let urls = urls.chain(requests.split_whitespace());
        let urls: Vec<Url> = urls.map(Url::parse).collect::<Result<_, _>>()?;
        match urls.split_first() {
            None => return Err("there is no URL to fetch".into()),
            Some((first, rest)) => {
                if let Some(other) = rest.iter().find(|u| !u.same_server(first)) {
                    return Err(format!("{other} is on another server than {first}"));
                }
            }
        }
        Ok(ClientArgs {
            out: self.need("--out")?.into(),
            ca,
            bind: self.get("--bind").map(|a| addr("--bind", a)).transpose()?,
            urls,
            case,
        })
    }
}

fn addr(what: &str, text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("{what} `{text}` is not an address with a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str, env: &[(&str, &str)]) -> Result<Option<Args>, String> {
        parse(line.split_whitespace().map(String::from), |name| {
            let found = env.iter().find(|(n, _)| *n == name);
            found.map(|(_, v)| v.to_string())
        })
    }

    #[test]
    fn a_server_reads_its_flags_and_its_case() {
        let line = "server --listen 127.0.0.1:0 --root w --cert c --key k";
        let Ok(Some(Args::Server(s))) = call(line, &[("TESTCASE", "retry")]) else {
            panic!("a good call");
        };
        assert!(s.retry);
        assert_eq!(s.case, Case::Retry);
        assert!(call("server --listen 127.0.0.1 --root w --cert c --key k", &[]).is_err());
    }

    #[test]
    fn a_client_takes_urls_from_both_places() {
        let env = [
            ("REQUESTS", "https://a:1/y https://a:1/z"),
            ("TESTCASE", "resumption"),
        ];
        let Ok(Some(Args::Client(c))) = call("client --out o --insecure https://a:1/x", &env)
        else {
            panic!("a good call");
        };
        assert_eq!(c.urls.len(), 3);
        assert_eq!(
            c.batches().iter().map(|b| b.len()).collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn a_wrong_call_is_told() {
        for line in [
            "client --out o https://a:1/x",
            "client --out o --insecure --ca x https://a:1/x",
            "client --out o --insecure",
            "client --out o --insecure https://a:1/x https://b:1/x",
            "client --out o --insecure --what https://a:1/x",
            "client --insecure https://a:1/x",
            "neither",
            "",
        ] {
            assert!(call(line, &[]).is_err(), "{line}");
        }
    }

    #[test]
    fn an_unknown_case_is_unsupported() {
        let line = "client --out o --insecure https://a:1/x";
        assert_eq!(call(line, &[("TESTCASE", "http3")]), Ok(None));
        assert_eq!(call(line, &[("TESTCASE", "versionnegotiation")]), Ok(None));
    }
}
