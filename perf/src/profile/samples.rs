//! Lines of `perf script --show-mmap-events -F comm,tid,time,ip,sym,dso`.

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A file was mapped.
    Map(Map),
    /// The CPU was seen there.
    Sample(Sample),
}

/// Part of a file in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Address of its first byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Offset of its first byte in the file.
    pub file_offset: u64,
    /// The file.
    pub path: String,
}

impl Map {
    /// Whether the address is in this part.
    pub fn contains(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.len
    }

    /// Where in the file that address is.
    pub fn offset(&self, address: u64) -> u64 {
        address - self.start + self.file_offset
    }
}

/// Whose code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The operating system's.
    Kernel,
    /// The process's.
    User,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Name of the thread.
    pub thread: String,
    /// Where it was.
    pub address: u64,
    /// The symbol there, as perf has it.
    pub symbol: String,
    /// Which side of the system call.
    pub code: Code,
}

/// Reads one line; `None` when it is neither.
pub fn parse(line: &str) -> Option<Record> {
    if let Some((_, rest)) = line.split_once("PERF_RECORD_MMAP2") {
        return map(rest).map(Record::Map);
    }
    let mut words = line.split_whitespace();
    let thread = words.next()?.to_string();
    let _tid: u32 = words.next()?.parse().ok()?;
    let mut next = words.next()?;
    if next.ends_with(':') {
        next = words.next()?;
    }
    let address = u64::from_str_radix(next, 16).ok()?;
    let rest = words.collect::<Vec<_>>().join(" ");
    let (symbol, file) = rest.rsplit_once(" (")?;
    // Addresses of the upper half are the kernel's, modules and what has no symbol included.
    let code = match address >> 63 == 1 || file.starts_with("[kernel") {
        true => Code::Kernel,
        false => Code::User,
    };
    Some(Record::Sample(Sample {
        thread,
        address,
        symbol: symbol.into(),
        code,
    }))
}

/// ` 9572/9572: [0x55982d9a3000(0x369000) @ 0xe0000 fe:00 6013506 2284188167]: r-xp /bin/corelane`
fn map(text: &str) -> Option<Map> {
    let (_, rest) = text.split_once('[')?;
    let (start, rest) = rest.split_once('(')?;
    let (len, rest) = rest.split_once(") @ ")?;
    let (inside, rest) = rest.split_once("]: ")?;
    let (_, path) = rest.split_once(' ')?;
    let hex = |s: &str| u64::from_str_radix(s.trim_start_matches("0x"), 16).ok();
    Some(Map {
        start: hex(start)?,
        len: hex(len)?,
        file_offset: hex(inside.split(' ').next()?)?,
        path: path.trim().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read() {
        let line = "corelane 9572 25364.523151: PERF_RECORD_MMAP2 9572/9572: \
            [0x55982d9a3000(0x369000) @ 0xe0000 fe:00 6013506 2284188167]: r-xp /bin/corelane";
        let Some(Record::Map(map)) = parse(line) else {
            panic!("no map");
        };
        assert_eq!((map.len, map.path.as_str()), (0x36_9000, "/bin/corelane"));
        assert!(map.contains(0x5598_2d9a_3000) && !map.contains(0x5598_2d9a_2fff));
        assert_eq!(map.offset(0x5598_2d9a_3010), 0xe_0010);
    }

    #[test]
    fn samples_of_both_sides_of_a_system_call_are_read() {
        let sample = |line| match parse(line) {
            Some(Record::Sample(sample)) => sample,
            other => panic!("{other:?}"),
        };
        let user =
            sample(" server-0  9576 25364.5: 55982dcf07c1 <corelane::A as B>::f (/bin/corelane)");
        assert_eq!(user.thread, "server-0");
        assert_eq!((user.code, user.address), (Code::User, 0x5598_2dcf_07c1));
        assert_eq!(user.symbol, "<corelane::A as B>::f");
        let kernel =
            sample("client-0 9579 25364.5: ffffffff82203249 do_softirq ([kernel.kallsyms])");
        assert_eq!(
            (kernel.code, kernel.symbol.as_str()),
            (Code::Kernel, "do_softirq")
        );
        let module = sample("client-0 9579 25364.5: ffffffffc0003249 [unknown] ([veth])");
        assert_eq!(module.code, Code::Kernel);
    }

    #[test]
    fn other_lines_are_nothing() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("Samples for 'cpu-clock' event"), None);
        assert_eq!(
            parse("server-0 9576 25364.5: PERF_RECORD_EXIT(9576:9576)"),
            None
        );
    }
}
