//! What is in a file system of the model, also laid out as a directory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What is in a file system: paths and bytes.
pub type Content = BTreeMap<String, Vec<u8>>;

/// Writes a content to a directory that lives as long as what is returned. The time of writing is none of the content.
pub(super) fn laid_out(content: &Content) -> io::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for (path, bytes) in content {
        let path = dir.path().join(path);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&path, bytes)?;
        std::fs::File::open(&path)?.set_modified(std::time::UNIX_EPOCH)?;
    }
    for path in content.keys() {
        for above in Path::new(path).ancestors().skip(1) {
            std::fs::File::open(dir.path().join(above))?.set_modified(std::time::UNIX_EPOCH)?;
        }
    }
    std::fs::File::open(dir.path())?.set_modified(std::time::UNIX_EPOCH)?;
    Ok(dir)
}

/// The files below a directory; what is no file is left out.
pub(super) fn read_back(dir: &Path, below: &str, into: &mut Content) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_back(&entry.path(), &format!("{name}/"), into)?;
        } else if kind.is_file() {
            into.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}
