//! siris-live, run once by the live initrd: from the installer's medium to an open, verified root device.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use siris_host::cmd::{Cmd, Tool};
use siris_ibu::keys::PublicKey;
use siris_ibu::{ByteSize, Sha256, SignedManifest};
use siris_live::console::{Bar, Consoles};
use siris_live::load::{self, LoadError};
use siris_live::{LIVE, medium};

const CD: &str = "/run/siris/cd";
/// How often an absent medium is looked for.
const POLL: Duration = Duration::from_secs(1);

fn main() {
    let consoles = Screen(RefCell::new(Consoles::open(Path::new("/"))));
    consoles.say(&format!("{} s after the kernel: loading the installer; disks are made read-only", uptime()));
    match run(&consoles) {
        Ok(()) => {}
        Err(error) => {
            let code = error.downcast_ref::<LoadError>().map(|cause| format!(" ({})", cause.code()));
            consoles.say(&format!("stopped: {error:#}{}", code.unwrap_or_default()));
            consoles.say("no disk was written to. Switch the power off, or press Ctrl-Alt-Del to start over.");
            // Not a failure of the unit: that would end in a reboot, and the message would be gone.
            loop {
                sleep(Duration::from_secs(3600));
            }
        }
    }
}

/// Seconds since the kernel started, as /proc/uptime has them.
fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

fn run(consoles: &Screen) -> anyhow::Result<()> {
    let trusted = load::keys(Path::new(load::KEYS))?;
    let booted = booted_manifest()?;
    let mut waited = 0u32;
    loop {
        for device in medium::candidates(Path::new("/")).context("cannot look for the medium")? {
            match from_device(&device, &trusted, booted, consoles) {
                Ok(signed) => return open_root(&signed, consoles),
                Err(error) => match error.downcast_ref::<LoadError>() {
                    Some(cause) if cause.is_worth_another_try() => {
                        consoles.say(&format!("{}: {error:#}", device.display()));
                        consoles.say("attach the medium again (virtual media of the BMC): reading then starts over");
                    }
                    _ => return Err(error),
                },
            }
        }
        if waited.is_multiple_of(30) {
            consoles.say(&format!("looking for the medium labelled {} ...", medium::LABEL));
        }
        waited += 1;
        sleep(POLL);
    }
}

/// The digest of the manifest on the medium that the boot loader was started from.
fn booted_manifest() -> anyhow::Result<Option<Sha256>> {
    let cmdline = fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    let word = cmdline.split_whitespace().find_map(|word| word.strip_prefix("siris.manifest="));
    word.map(|word| word.parse().context("siris.manifest= on the kernel command line")).transpose()
}

/// Mounted for as long as it lives; made lazily gone, since the device below may be gone already.
struct Mounted(&'static str);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Nothing of it is needed any more; a mount that stays is harmless.
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

fn from_device(
    device: &Path,
    trusted: &[PublicKey],
    booted: Option<Sha256>,
    consoles: &Screen,
) -> anyhow::Result<SignedManifest> {
    fs::create_dir_all(CD).context("cannot make the mount point")?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(device, CD, "iso9660", flags, None)
        .map_err(|error| LoadError::Medium(ByteSize::from_bytes(0), error.into()))?;
    let mounted = Mounted(CD);
    let path = Path::new(CD).join(medium::BUNDLE);
    let at_start = |error| LoadError::Medium(ByteSize::from_bytes(0), error);
    let file = File::open(&path).map_err(at_start)?;
    let total = file.metadata().map_err(at_start)?.len();

    let source = Shown { inner: file, read: 0, bar: Bar::new("reading", total), screen: consoles };
    let bundle = load::open(source, trusted, booted)?;
    let manifest = bundle.signed().manifest();
    consoles.say(&format!(
        "{}: {} {}, signed by {}",
        device.display(),
        manifest.product,
        manifest.version,
        bundle.signed().verified().key.name()
    ));
    load::check_memory(memory()?, bundle.signed())?;
    let live = Path::new(LIVE);
    // What an earlier attempt has left.
    let _ = unmount(LIVE, UnmountFlags::DETACH);
    fs::create_dir_all(live).context("cannot make the mount point")?;
    let size = std::ffi::CString::new(format!("mode=0755,nr_inodes=64,size={}", load::tmpfs_bytes(bundle.signed())))?;
    mount("siris", LIVE, "tmpfs", MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC, Some(size.as_c_str()))
        .context("cannot make room in memory")?;

    let signed = load::unpack(bundle, live)?;
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    fs::write(live.join("medium"), format!("{name}\n")).context("cannot note the medium")?;
    answers(live)?;
    drop(mounted);
    consoles.say("everything is in memory: the medium is not needed any more");
    Ok(signed)
}

fn answers(live: &Path) -> anyhow::Result<()> {
    match fs::read(Path::new(CD).join(medium::ANSWERS)) {
        Ok(bytes) => fs::write(live.join(medium::ANSWERS), bytes).context("cannot keep the answers"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(LoadError::Medium(ByteSize::from_bytes(0), error).into()),
    }
}

fn memory() -> anyhow::Result<ByteSize> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kib: u64 = line.and_then(|kib| kib.trim().parse().ok()).context("/proc/meminfo has no MemTotal")?;
    Ok(ByteSize::from_bytes(kib * 1024))
}

/// The consoles, shared by who reads and who talks.
struct Screen(RefCell<Consoles>);

impl Screen {
    fn say(&self, text: &str) {
        self.0.borrow_mut().say(text);
    }
}

/// Shows how far reading has come.
struct Shown<'a> {
    inner: File,
    read: u64,
    bar: Bar,
    screen: &'a Screen,
}

impl Read for Shown<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(line) = self.bar.line(self.read) {
            self.screen.0.borrow_mut().over(&line);
        }
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// The image opened through verity, so that memory that goes bad is noticed as a disk's would be.
fn open_root(signed: &SignedManifest, consoles: &Screen) -> anyhow::Result<()> {
    let live = Path::new(LIVE);
    Cmd::new(Tool::Veritysetup)
        .args(["open", "--panic-on-corruption"])
        .arg(live.join("root"))
        .arg("root")
        .arg(live.join("tree"))
        .arg(signed.manifest().verity.root_hash.to_string())
        .run()
        .context("cannot open the root image")?;
    consoles.say("starting the system");
    Ok(())
}
