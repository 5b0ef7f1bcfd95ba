//! Bytes of a trace: from a file, standard input or the program itself, unpacked by what they
//! begin with (zstd, xz or plain text), whatever the name says.

use lzma_rust2::XzReader;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The trace inside the program, replayed when none is given.
const EMBEDDED: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/traces/queue.jsonl.zst"));
const EMBEDDED_NAME: &str = "queue (built in)";

const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
/// The recordings are packed with a window of up to 128 MB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Enough for what `xz -9` packs (64 MB), so that a damaged header does not ask for gigabytes.
const XZ_MEMORY_KB: u32 = 256 << 10;

/// Where a trace comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Embedded,
    Stdin,
    File(PathBuf),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error(
        "{name} cannot be read: {error}\n  check the path; a trace is a .jsonl, .jsonl.zst or .jsonl.xz file as in traces/, or - for standard input"
    )]
    Read { name: String, error: std::io::Error },
    #[error(
        "{name}: line {line}: here, or within one packed block behind it, the {packing} data are damaged or cut short: {cause}\n  take the file again from where it came (git checkout traces/)"
    )]
    Unpack { name: String, line: usize, packing: &'static str, cause: String },
}

impl Source {
    pub(crate) fn of(path: &Path) -> Self {
        if path.as_os_str() == "-" { Source::Stdin } else { Source::File(path.to_owned()) }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Source::Embedded => EMBEDDED_NAME.to_owned(),
            Source::Stdin => "standard input".to_owned(),
            Source::File(path) => path.display().to_string(),
        }
    }

    /// The unpacked text.
    pub(crate) fn read(&self) -> Result<Vec<u8>, InputError> {
        let failed = |error| InputError::Read { name: self.name(), error };
        let raw = match self {
            Source::Embedded => return self.unpack(EMBEDDED),
            Source::Stdin => {
                let mut raw = Vec::new();
                std::io::stdin().read_to_end(&mut raw).map_err(failed)?;
                raw
            }
            Source::File(path) => std::fs::read(path).map_err(failed)?,
        };
        if raw.starts_with(ZSTD) || raw.starts_with(XZ) { self.unpack(&raw) } else { Ok(raw) }
    }

    fn unpack(&self, raw: &[u8]) -> Result<Vec<u8>, InputError> {
        let mut text = Vec::with_capacity(raw.len() * 12);
        let (packing, done) = if raw.starts_with(XZ) {
            ("xz", XzReader::new_mem_limit(raw, true, XZ_MEMORY_KB).read_to_end(&mut text).map(drop))
        } else {
            ("zstd", unzstd(raw, &mut text))
        };
        match done {
            Ok(()) => Ok(text),
            Err(cause) => {
                // Both hand out what comes before the damaged block.
                let line = text.iter().filter(|&&byte| byte == b'\n').count() + 1;
                Err(InputError::Unpack { name: self.name(), line, packing, cause: cause.to_string() })
            }
        }
    }
}

fn unzstd(raw: &[u8], text: &mut Vec<u8>) -> std::io::Result<()> {
    let mut decoder = zstd::Decoder::with_buffer(raw)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    decoder.read_to_end(text).map(drop)
}
