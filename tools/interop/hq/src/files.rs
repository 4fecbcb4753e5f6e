//! Requests and files. A path from the wire reaches nothing outside the served directory.

use crate::Url;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This file.
    File(PathBuf),
    /// Nothing that is served.
    Nothing,
    /// The request is not whole yet.
    Incomplete,
}

/// The request for a URL, with its line end.
pub fn request(url: &Url) -> Vec<u8> {
    format!("GET {}\r\n", url.path).into_bytes()
}

/// Reads a request against the served directory. `finished` says that no more bytes come, which
/// ends a line too.
pub fn read(root: &Path, request: &[u8], finished: bool) -> Wanted {
    let line = match request.iter().position(|b| *b == b'\n') {
        Some(end) => &request[..end],
        None if finished => request,
        None if request.len() > crate::MAX_REQUEST => return Wanted::Nothing,
        None => return Wanted::Incomplete,
    };
    let text = std::str::from_utf8(line).unwrap_or_default().trim_end();
    let path = text.strip_prefix("GET /").and_then(|p| below(root, p));
    path.map_or(Wanted::Nothing, Wanted::File)
}

/// The file `path` below `root`, if it is one there, symbolic links followed.
fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let plain = |c| matches!(c, Component::Normal(_));
    if !Path::new(path).components().all(plain) {
        return None;
    }
    let root = root.canonicalize().ok()?;
    let file = root.join(path).canonicalize().ok()?;
    (file.starts_with(&root) && file.is_file()).then_some(file)
}

/// Keeps a fetched file under its name in `out`.
///
/// # Errors
/// The URL has no file name, or the disk says no.
pub fn save(out: &Path, url: &Url, data: &[u8]) -> io::Result<()> {
    let name = Path::new(&url.path).file_name();
    let name = name.ok_or_else(|| io::Error::other(format!("{url} names no file")))?;
    fs::create_dir_all(out)?;
    fs::write(out.join(name), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("hq-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("www/sub")).unwrap();
        fs::write(dir.join("secret"), "s").unwrap();
        fs::write(dir.join("www/file"), "f").unwrap();
        fs::write(dir.join("www/sub/file"), "g").unwrap();
        let _ = std::os::unix::fs::symlink("../secret", dir.join("www/link"));
        dir
    }

    #[test]
    fn files_of_the_tree_are_found() {
        let dir = tree("found");
        let www = dir.join("www");
        for (line, file) in [("GET /file\r\n", "file"), ("GET /sub/file\n", "sub/file")] {
            let Wanted::File(path) = read(&www, line.as_bytes(), false) else {
                panic!("{line:?}");
            };
            assert_eq!(fs::read(path).unwrap(), fs::read(www.join(file)).unwrap());
        }
        assert!(matches!(read(&www, b"GET /file", true), Wanted::File(_)));
        assert_eq!(read(&www, b"GET /file", false), Wanted::Incomplete);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_outside_is_served() {
        let dir = tree("outside");
        for line in [
            "GET /../secret\r\n",
            "GET /sub/../../secret\r\n",
            "GET //etc/passwd\r\n",
            "GET /link\r\n",
            "GET /\r\n",
            "GET /sub\r\n",
            "GET file\r\n",
            "POST /file\r\n",
            "\r\n",
            "GET /fi\0le\r\n",
        ] {
            let got = read(&dir.join("www"), line.as_bytes(), false);
            assert_eq!(got, Wanted::Nothing, "{line:?}");
        }
        let long = vec![b'x'; crate::MAX_REQUEST + 1];
        assert_eq!(read(&dir, &long, false), Wanted::Nothing);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_is_saved_under_its_name_alone() {
        let dir = tree("saved");
        let url = Url::parse("https://a:1/deep/name").unwrap();
        save(&dir.join("out"), &url, b"data").unwrap();
        assert_eq!(fs::read(dir.join("out/name")).unwrap(), b"data");
        assert!(save(&dir, &Url::parse("https://a:1/..").unwrap(), b"").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
