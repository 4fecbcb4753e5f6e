//! What `corelane rdma client` can be told to do: read before anything is done.

use corelane::shard::lanes::Operation;

/// Messages of `auto` without a number.
const AUTO: usize = 5;
/// What can be commanded.
const COMMANDS: &str = "write send TEXT, write OFFSET TEXT, read OFFSET LENGTH, atomic add \
     OFFSET N, atomic swap OFFSET COMPARE SWAP, auto [N] or quit";

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An empty line.
    Nothing,
    Quit,
    Send(String),
    Auto(usize),
    Write(u64, String),
    Read(u64, u32),
    Atomic(Operation),
}

impl Command {
    /// Reads one; the error is a sentence.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let command = match word {
            "" => Some(Self::Nothing),
            "quit" if rest.is_empty() => Some(Self::Quit),
            "send" => Some(Self::Send(rest.to_owned())),
            "auto" if rest.is_empty() => Some(Self::Auto(AUTO)),
            "auto" => rest.trim().parse().ok().map(Self::Auto),
            "write" => write(rest),
            "read" => read(rest),
            "atomic" => atomic(rest).map(Self::Atomic),
            _ => None,
        };
        command.ok_or_else(|| format!("`{line}` is no command: {COMMANDS}"))
    }

    /// Reads those of a command line, each of which is one argument.
    pub fn parse_all(arguments: &[String]) -> Result<Vec<Self>, String> {
        let all: Result<Vec<Self>, String> = arguments.iter().map(|a| Self::parse(a)).collect();
        let bare = |a: &String| matches!(a.trim(), "send" | "write" | "read" | "atomic" | "auto");
        let joined = arguments.join(" ");
        // One command that the shell took apart.
        let apart = arguments.len() > 1 && arguments.first().is_some_and(bare);
        if apart && (all.is_err() || arguments.first().is_some_and(|a| a.trim() == "send")) {
            return Err(format!(
                "each command is one argument: put it in quotes, as in \"{joined}\""
            ));
        }
        all
    }
}

fn write(rest: &str) -> Option<Command> {
    let (at, text) = rest.split_once(' ')?;
    Some(Command::Write(at.parse().ok()?, text.to_owned()))
}

fn read(rest: &str) -> Option<Command> {
    let (at, len) = rest.trim().split_once(' ')?;
    Some(Command::Read(at.parse().ok()?, len.trim().parse().ok()?))
}

/// The operation that `add OFFSET N` or `swap OFFSET COMPARE SWAP` asks for.
fn atomic(rest: &str) -> Option<Operation> {
    let mut words = rest.split_whitespace();
    let kind = words.next()?;
    let numbers: Vec<u64> = words.map(|w| w.parse().ok()).collect::<Option<_>>()?;
    match (kind, numbers.as_slice()) {
        ("add", &[remote, add]) => Some(Operation::FetchAdd {
            local: 0,
            remote,
            add,
        }),
        ("swap", &[remote, compare, swap]) => Some(Operation::CompareSwap {
            local: 0,
            remote,
            compare,
            swap,
        }),
        _ => None,
    }
}

/// Bytes as people read them: text where all of it can be printed, else hexadecimal digits.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text)
            if !text
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t') =>
        {
            text.into()
        }
        _ => {
            let digits: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("hex {}", digits.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(words: &[&str]) -> Result<Vec<Command>, String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        Command::parse_all(&words)
    }

    #[test]
    fn commands_are_read() {
        assert_eq!(
            Command::parse("send a b"),
            Ok(Command::Send("a b".to_owned()))
        );
        assert_eq!(Command::parse(" auto "), Ok(Command::Auto(AUTO)));
        assert_eq!(Command::parse("read 16 5"), Ok(Command::Read(16, 5)));
        assert_eq!(
            Command::parse("atomic add 8 1"),
            Ok(Command::Atomic(Operation::FetchAdd {
                local: 0,
                remote: 8,
                add: 1
            }))
        );
        for wrong in ["read 16", "read x 1", "atomic add 8", "write 1", "sned a"] {
            assert!(Command::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn forgotten_quotes_are_named() {
        for words in [&["send", "hello"][..], &["read", "0", "5"]] {
            let error = all(words).expect_err("no command");
            assert!(
                error.contains(&format!("\"{}\"", words.join(" "))),
                "{error}"
            );
        }
        assert_eq!(all(&["send a", "quit"]).map(|c| c.len()), Ok(2));
        assert_eq!(all(&["auto", "quit"]).map(|c| c.len()), Ok(2));
    }

    #[test]
    fn what_cannot_be_printed_is_shown_in_hexadecimal() {
        assert_eq!(shown(b"there"), "there");
        assert_eq!(shown(&[0, 255]), "hex 00 ff");
    }
}
