//! Where the text of a configuration comes from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Bytes of the longest file that is read.
const LONGEST: u64 = 4 << 20;

/// Files a configuration may be read from and include: the disk, or texts in memory (a map from path to
/// text is one).
///
/// # Examples
/// ```
/// use std::collections::BTreeMap;
/// use std::path::PathBuf;
/// use stasis_bus::config::Config;
/// let files: BTreeMap<PathBuf, String> = BTreeMap::from([
///     ("stasis.conf".into(), "[threadpool]\n#include local.conf\n".into()),
///     ("local.conf".into(), "max_size = 9\n".into()),
/// ]);
/// assert_eq!(Config::load_from("stasis.conf", &files).unwrap().threadpool.max_size, 9);
/// ```
pub trait ConfigFiles {
    /// The content of a file.
    ///
    /// # Errors
    /// As the system says; `NotFound` if there is none.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The paths of a folder, for `#include folder/*.conf`.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
}

/// The files of the system: regular ones up to 4 MiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl ConfigFiles for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        // Asked first: opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return refused("not a regular file");
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST { refused("larger than 4 MiB") } else { Ok(bytes) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }
}

impl ConfigFiles for BTreeMap<PathBuf, String> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.get(&normal(path)).map(|text| text.clone().into_bytes()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.keys().filter(|path| path.parent() == Some(&normal(folder))).cloned().collect())
    }
}

/// Bytes as text, without byte order mark. What is no UTF-8 becomes U+FFFD: harmless in comments, and
/// refused in a value.
pub(super) fn decode(bytes: &[u8]) -> Result<String, &'static str> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err("UTF-16 is not read, only UTF-8");
    }
    Ok(without_mark(&String::from_utf8_lossy(bytes)).to_owned())
}

/// A text without its byte order mark.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A path without `.` and `..`, as text alone tells.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(normal.components().next_back(), Some(Component::Normal(_))) => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}
