//! The state partition of a new box: what the agent finds there at its first boot.
//!
//! Files are decided from plan and answers ([`files`], no I/O) and become an ext4 image in memory ([`Image`]), made by
//! mkfs.ext4 from a directory: nothing is ever mounted. The image is small; the file system grows into its partition
//! at first boot. One file in it is made of blocks that can be found again in the image: the receipt is written over
//! them when all else is done, without a file system in between.

mod network;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use siris_host::cmd::{Cmd, CmdError, Tool};
use siris_ibu::{ByteSize, Class, Sha256};
use siris_zfs_label::PoolGuid;

use crate::answers::{Answers, DeviceId, Static};
use crate::facts::Health;
use crate::plan::{HostId, Plan, PoolPlan};

pub use network::{files as network_files, lines as network_lines};

/// Which install made the box.
pub const INSTALL: &str = "/var/lib/siris/install.toml";
/// The receipt of the install. It begins with `{` once it is there.
pub const RECEIPT: &str = "/var/lib/siris/receipts/install.json";
/// The key that signed it: the box's own.
pub const RECEIPT_KEY: &str = "/var/lib/siris/receipts/key";
/// A crypt(5) hash for root.
pub const PASSWORD_HASH: &str = "/var/lib/siris/root-password-hash";
/// Word that the box may take on what its pools know of it (see siris-agent's `escrow`).
pub const ESCROW_PENDING: &str = "/var/lib/siris/escrow-pending.toml";
/// Where files of systemd-networkd are.
pub const NETWORK: &str = "/etc/siris/network";

/// Bytes of the file that the receipt is written into.
pub const RECEIPT_BYTES: u64 = 512 * 1024;
const BLOCK: u64 = 4096;
/// Size of the image: all of it is written, read back and hashed, and the first boot grows it to its partition.
const SIZE: ByteSize = ByteSize::mib(96);
/// Blocks that it can grow to in place: 1 TiB of them.
const GROWS_TO: &str = "resize=268435456";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file could not be written, or the image not be read.
    #[error("making the state partition")]
    Io(#[from] io::Error),
    /// mkfs.ext4 failed.
    #[error("making the state partition")]
    Mkfs(#[from] CmdError),
    /// The receipt's blocks are not in the image.
    #[error("the state partition's image lacks the place of the receipt")]
    NoReceipt,
    /// The receipt is too long for its place.
    #[error("the receipt has {0} bytes, there is room for {RECEIPT_BYTES}")]
    ReceiptTooLong(usize),
}

impl StateError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "state-make",
            Self::Mkfs(error) => error.code(),
            Self::NoReceipt => "state-receipt-place",
            Self::ReceiptTooLong(_) => "receipt-too-long",
        }
    }

    /// Who must act.
    pub fn class(&self) -> Class {
        match self {
            Self::Io(_) | Self::Mkfs(_) => Class::Environment,
            Self::NoReceipt | Self::ReceiptTooLong(_) => Class::Bug,
        }
    }
}

/// A file of the new box.
#[derive(Clone, PartialEq, Eq)]
pub struct StateFile {
    /// Its absolute path on the running box; it lies below `/persist` on the partition.
    pub path: String,
    /// Its mode.
    pub mode: u32,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for StateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = if self.mode & 0o077 == 0 { "(secret)".into() } else { String::from_utf8_lossy(&self.bytes) };
        write!(f, "{} {:o} {content:?}", self.path, self.mode)
    }
}

fn file(path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) -> StateFile {
    StateFile { path: path.into(), mode, bytes: content.into() }
}

/// Everything the new box is told. `key` is the file of the box's own key; `made` the guid of the plan's new pool.
pub fn files(plan: &Plan, answers: &Answers, key: &[u8], made: Option<PoolGuid>) -> Vec<StateFile> {
    let mut files = vec![
        file("/etc/siris/config.toml", 0o644, config(answers)),
        file(INSTALL, 0o644, install(plan)),
        file(RECEIPT_KEY, 0o600, key),
    ];
    let identity = &answers.identity;
    if let DeviceId::Given(id) = identity.device_id {
        files.push(file("/var/lib/siris/device-id", 0o644, format!("{id}\n")));
    }
    match plan.hostid {
        // Made here and not at the first boot, since each disk of a mirrored pair has a first boot of its own: with
        // another host id the second one could not import what the first one had in use.
        HostId::New => files.push(file("/var/lib/siris/hostid", 0o644, format!("{:08x}\n", own_hostid(key)))),
        HostId::None => files.push(file("/var/lib/siris/hostid", 0o644, "none\n")),
        HostId::Id(id) => files.push(file("/var/lib/siris/hostid", 0o644, format!("{id:08x}\n"))),
    }
    let pools = pools(plan, made);
    if !pools.is_empty() {
        files.push(file("/var/lib/siris/pools.toml", 0o644, format!("schema = 1\n{pools}")));
    }
    files.extend(answers.access.password_hash.iter().map(|hash| file(PASSWORD_HASH, 0o600, format!("{hash}\n"))));
    let network = network_files(&answers.network);
    // A pool that is made now knows nobody at the first boot; the second disk of a pair finds the first one's box there.
    let has_pool = plan.new_pool.is_some() || plan.pools.iter().any(PoolPlan::is_imported);
    if identity.device_id == DeviceId::Restore && has_pool {
        let text = format!("schema = 1\nnetwork = {}\n", answers.network.kind == Static::Unsaid);
        files.push(file(ESCROW_PENDING, 0o644, text));
    }
    files.extend(network.into_iter().map(|(name, text)| file(format!("{NETWORK}/{name}"), 0o644, text)));
    files
}

/// A host id of the box's own: as random as its key is, never 0, and nothing that tells of the key.
fn own_hostid(key: &[u8]) -> u32 {
    let [a, b, c, d, ..] = *Sha256::of(&[b"host id of ", key].concat()).as_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(texts: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", texts.into_iter().map(|text| quoted(&text)).collect::<Vec<_>>().join(", "))
}

/// `/etc/siris/config.toml`, as `sirisctl config` would have written it.
fn config(answers: &Answers) -> String {
    let identity = &answers.identity;
    let mut text = format!("schema = 1\nrole = {}\n", quoted(identity.role.as_str()));
    for (key, value) in [("hostname", &identity.hostname), ("timezone", &identity.timezone)] {
        text.extend(value.iter().map(|value| format!("{key} = {}\n", quoted(value))));
    }
    let sections = [
        ("ssh", "authorized-keys", list(answers.access.ssh_keys.iter().cloned())),
        ("ntp", "servers", list(answers.network.ntp.iter().cloned())),
        ("dns", "servers", list(answers.network.dns.iter().map(ToString::to_string))),
    ];
    for (section, key, value) in sections.into_iter().filter(|(_, _, value)| value != "[]") {
        text += &format!("\n[{section}]\n{key} = {value}\n");
    }
    text
}

fn install(plan: &Plan) -> String {
    let manifest = quoted(&plan.manifest.to_string());
    format!("schema = 1\nid = {}\nimage = {}\nmanifest = {manifest}\n", quoted(&plan.id), quoted(&plan.image))
}

/// The pools that the agent imports at first boot, by guid, in the form in which it remembers its own.
fn pools(plan: &Plan, made: Option<PoolGuid>) -> String {
    let entry = |guid: PoolGuid, name: &str, state: &str| {
        format!("\n[[pool]]\nguid = \"{guid}\"\nname = {}\nstate = \"{state}\"\n", quoted(name))
    };
    let kept = plan.pools.iter().filter(|pool| pool.is_imported()).map(|pool| match pool.health {
        Health::Complete => entry(pool.guid, &pool.name, "ONLINE"),
        Health::Degraded | Health::Incomplete => entry(pool.guid, &pool.name, "DEGRADED"),
    });
    let new = made.into_iter().zip(&plan.new_pool).map(|(guid, pool)| entry(guid, &pool.name, "ONLINE"));
    kept.chain(new).collect()
}

/// The file system's image, in memory.
#[derive(Debug)]
pub struct Image {
    file: File,
    size: u64,
    sha256: Sha256,
    receipt: Vec<u64>,
}

/// The content of the receipt's file before the receipt is there: each block says which one it is.
fn placeholder(nonce: &str, block: u64) -> Vec<u8> {
    let mut bytes = format!("no receipt yet: the install has not come to its end\n{nonce} {block}\n").into_bytes();
    bytes.resize(BLOCK as usize, b' ');
    bytes
}

impl Image {
    /// Makes the image in a new directory below `scratch`, which has to lie in memory: there are secrets in it.
    ///
    /// # Errors
    /// When mkfs.ext4 fails, or memory is full.
    pub fn make(scratch: &Path, files: &[StateFile]) -> Result<Self, StateError> {
        let dir = tempfile::tempdir_in(scratch)?;
        let (tree, path) = (dir.path().join("tree"), dir.path().join("state.ext4"));
        let nonce = uuid::Uuid::new_v4().to_string();
        let receipt = (0..RECEIPT_BYTES / BLOCK).flat_map(|block| placeholder(&nonce, block)).collect();
        let receipt = StateFile { path: RECEIPT.to_owned(), mode: 0o644, bytes: receipt };
        make_dir(&tree)?;
        for file in files.iter().chain([&receipt]) {
            let path = tree.join("persist").join(file.path.trim_start_matches('/'));
            make_dirs(path.parent().unwrap_or(&tree))?;
            fs::write(&path, &file.bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        }
        File::create_new(&path)?.set_len(SIZE.bytes())?;
        // A fixed block size: small file systems get small blocks by default, and this one grows.
        Cmd::new(Tool::MkfsExt4)
            .args(["-q", "-F", "-L", "SIRIS_STATE", "-m", "1", "-b", "4096", "-I", "256", "-i", "16384"])
            .args(["-J", "size=32", "-O", "^metadata_csum_seed,^orphan_file"])
            .args(["-E", &format!("nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,{GROWS_TO}"), "-d"])
            .arg(&tree)
            .arg(&path)
            .run()?;
        let mut file = File::open(&path)?;
        let receipt = find(&mut file, &nonce)?;
        file.rewind()?;
        let sha256 = Sha256::of_reader(io::BufReader::with_capacity(1 << 20, &file))?;
        file.rewind()?;
        Ok(Self { file, size: SIZE.bytes(), sha256, receipt })
    }

    /// The image, from its start.
    ///
    /// # Errors
    /// When memory cannot be read.
    pub fn reader(&mut self) -> io::Result<&mut File> {
        self.file.rewind()?;
        Ok(&mut self.file)
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its digest, before the receipt is in it.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// The blocks that make the file of the receipt hold `receipt`: where each goes in the image, and what.
    ///
    /// # Errors
    /// When it is too long.
    pub fn receipt_blocks(&self, receipt: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, StateError> {
        if receipt.len() as u64 > RECEIPT_BYTES {
            return Err(StateError::ReceiptTooLong(receipt.len()));
        }
        // Blanks behind a JSON text are part of it.
        let mut bytes = receipt.to_vec();
        bytes.resize(RECEIPT_BYTES as usize, b'\n');
        Ok(self.receipt.iter().copied().zip(bytes.chunks(BLOCK as usize).map(<[u8]>::to_vec)).collect())
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    dir.parent().map_or(Ok(()), make_dirs)?;
    make_dir(dir)
}

/// Where each block of the receipt's file lies in the image.
fn find(image: &mut File, nonce: &str) -> Result<Vec<u64>, StateError> {
    let count = RECEIPT_BYTES / BLOCK;
    let mut places = vec![None; count as usize];
    let first = placeholder(nonce, 0);
    let (mut buffer, mut at) = (vec![0; 256 * BLOCK as usize], 0);
    image.seek(SeekFrom::Start(0))?;
    loop {
        let read = image.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for (n, block) in buffer[..read].chunks_exact(BLOCK as usize).enumerate() {
            if block[..40] != first[..40] {
                continue;
            }
            if let Some(number) = (0..count).find(|number| block == placeholder(nonce, *number)) {
                places[number as usize] = Some(at + n as u64 * BLOCK);
            }
        }
        // The size of the image is a whole number of buffers, and a file gives whole ones.
        at += read as u64;
    }
    places.into_iter().collect::<Option<Vec<u64>>>().ok_or(StateError::NoReceipt)
}

#[cfg(test)]
mod tests;
