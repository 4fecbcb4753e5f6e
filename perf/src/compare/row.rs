//! The rows of one comparison: programs found on this machine, and further configurations of them.

use std::path::PathBuf;

use super::peer::{self, Built, PEERS, Peer, Role};
use crate::places::{BUILD, BUILD_PEERS, locate};

/// A program that is run, and what it is told.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in tables.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The program, and its arguments for each case.
    pub peer: &'static Peer,
    /// Its file.
    pub path: PathBuf,
    /// Arguments behind those of the case.
    pub more: Vec<String>,
}

/// Where programs are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// Those of the workspace.
    pub here: PathBuf,
    /// Those of `perf/peers`.
    pub peers: PathBuf,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of rows; none are all. Those of `rows` are wanted without being named again.
    pub names: Vec<String>,
    /// Rows beyond the usual ones, each as [`further`] reads it.
    pub rows: Vec<String>,
    /// More arguments for every row of the subject's program.
    pub subject: Vec<String>,
}

impl Row {
    fn new(peer: &'static Peer, places: &Places) -> Result<Self, String> {
        let (directory, remedy) = match peer.built {
            Built::Here => (&places.here, BUILD),
            Built::ByPeers => (&places.peers, BUILD_PEERS),
        };
        Ok(Self {
            name: peer.name.into(),
            role: peer.role,
            peer,
            path: locate(directory, peer.program, remedy)?,
            more: Vec::new(),
        })
    }

    /// Whether it is the subject's program.
    pub fn is_subject(&self) -> bool {
        matches!(self.role, Role::Subject | Role::Variant)
    }
}

/// All rows that are wanted and there, in the order of a round, and a sentence for each that is
/// wanted and was not built.
///
/// # Errors
/// When a name or a further row is none, a program of the workspace is missing, or nothing is left.
pub fn rows(wanted: &Wanted, places: &Places) -> Result<(Vec<Row>, Vec<String>), String> {
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    let further: Vec<_> = wanted
        .rows
        .iter()
        .map(|r| further(r))
        .collect::<Result<_, _>>()?;
    for (n, (name, ..)) in further.iter().enumerate() {
        if further[..n].iter().any(|(other, ..)| other == name) {
            return Err(format!(
                "two rows are called `{name}`: give each a name of its own"
            ));
        }
    }
    let names = || {
        PEERS
            .iter()
            .map(|p| p.name)
            .chain(further.iter().map(|(n, ..)| *n))
    };
    for name in &wanted.names {
        if !names().any(|known| known == name) {
            let known: Vec<_> = names().collect();
            return Err(format!("no program `{name}`: {}", known.join(", ")));
        }
    }
    let is_wanted = |name: &str| wanted.names.is_empty() || wanted.names.iter().any(|n| n == name);
    for peer in PEERS {
        let own = further.iter().filter(|(_, of, _)| of.name == peer.name);
        let own = own.map(|(name, _, more)| (*name, more.clone()));
        for (name, more) in [(peer.name, Vec::new())].into_iter().chain(own) {
            // Who adds a row wants it.
            if name == peer.name && !is_wanted(name) {
                continue;
            }
            let mut row = match Row::new(peer, places) {
                Ok(row) => row,
                Err(why) if peer.built == Built::ByPeers => {
                    missing.push(format!("{name} is left out: {why}"));
                    continue;
                }
                Err(why) => return Err(why),
            };
            if name != peer.name && row.role == Role::Subject {
                row.role = Role::Variant;
            }
            row.name = name.into();
            if row.is_subject() {
                row.more.clone_from(&wanted.subject);
            }
            row.more.extend(more);
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(format!("no row is left: {}", missing.join("; ")));
    }
    Ok((rows, missing))
}

/// Reads `NAME=PROGRAM ARGUMENTS`: a row of that name, which is a known program with more
/// arguments.
fn further(text: &str) -> Result<(&str, &'static Peer, Vec<String>), String> {
    let wrong = |why: &str| format!("`{text}`: {why}; write NAME=PROGRAM and its arguments");
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| wrong("it has no name"))?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(wrong("a name has letters, digits and -_.+"));
    }
    if peer::find(name).is_some() {
        return Err(wrong("the name is taken"));
    }
    let mut words = rest.split_whitespace();
    let program = words.next().unwrap_or_default();
    let Some(peer) = peer::find(program) else {
        let known: Vec<_> = PEERS.iter().map(|p| p.name).collect();
        let known = known.join(", ");
        return Err(wrong(&format!("`{program}` is none of {known}")));
    };
    Ok((name, peer, words.map(String::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    /// A directory in which every program of the workspace exists, and one peer.
    fn places(test: &str) -> Places {
        let root =
            std::env::temp_dir().join(format!("corelane-rows-{}-{test}", std::process::id()));
        let places = Places {
            here: root.join("here"),
            peers: root.join("peers"),
        };
        for (directory, programs) in [
            (&places.here, &["corelane", "quinn-bench", "ceiling"][..]),
            (&places.peers, &["tcp-bench"]),
        ] {
            fs::create_dir_all(directory).unwrap();
            for program in programs {
                let file = directory.join(program);
                fs::write(&file, "").unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
            }
        }
        places
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn a_peer_that_is_not_built_is_named_with_its_remedy() {
        let places = places("missing");
        let (rows, missing) = rows(&Wanted::default(), &places).unwrap();
        assert!(names(&rows).contains(&"tcp-rustls") && !names(&rows).contains(&"noq"));
        assert_eq!((rows[0].name.as_str(), missing.len()), ("corelane", 4));
        assert!(missing.iter().all(|m| m.contains("perf/peers/setup")));
        assert!(
            missing[0].starts_with("s2n-quic is left out"),
            "{missing:?}"
        );
    }

    #[test]
    fn a_program_of_the_workspace_has_to_be_there() {
        let mut places = places("empty");
        places.here = places.peers.clone();
        let error = rows(&Wanted::default(), &places).unwrap_err();
        assert!(
            error.contains("corelane is missing: run `cargo build"),
            "{error}"
        );
    }

    #[test]
    fn further_rows_stand_behind_their_program_and_are_no_subject() {
        let wanted = Wanted {
            names: ["corelane", "udp"].map(String::from).to_vec(),
            rows: vec!["corelane-aws=corelane --provider aws-lc-rs".into()],
            subject: vec!["--backend".into(), "mmsg".into()],
        };
        let (rows, missing) = rows(&wanted, &places("further")).unwrap();
        assert_eq!(names(&rows), ["corelane", "corelane-aws", "udp"]);
        assert_eq!((rows[1].role, missing.len()), (Role::Variant, 0));
        let expected = ["--backend", "mmsg", "--provider", "aws-lc-rs"];
        assert_eq!(
            (&rows[1].more[..], rows[0].more.len()),
            (&expected.map(String::from)[..], 2)
        );
        assert!(rows[2].more.is_empty());
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        let places = places("refused");
        for row in [
            "x",
            "=quinn",
            "x=",
            "x=nobody",
            "quinn=corelane",
            "a b=quinn",
            "a,b=quinn",
        ] {
            let wanted = Wanted {
                rows: vec![row.into()],
                ..Wanted::default()
            };
            assert!(rows(&wanted, &places).is_err(), "{row}");
        }
        let wanted = Wanted {
            names: vec!["nobody".into()],
            ..Wanted::default()
        };
        assert!(rows(&wanted, &places).unwrap_err().contains("s2n-quic"));
        let wanted = Wanted {
            rows: vec!["x=quinn".into(), "y=quinn".into(), "x=corelane".into()],
            ..Wanted::default()
        };
        let error = rows(&wanted, &places).unwrap_err();
        assert!(error.contains("two rows are called `x`"), "{error}");
    }

    #[test]
    fn that_nothing_is_left_is_an_error_that_says_why() {
        let wanted = Wanted {
            names: vec!["noq".into(), "quiche".into()],
            ..Wanted::default()
        };
        let error = rows(&wanted, &places("nothing")).unwrap_err();
        assert!(
            error.starts_with("no row is left: quiche is left out"),
            "{error}"
        );
        assert!(error.contains("; noq is left out"), "{error}");
    }
}
