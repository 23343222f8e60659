//! A machine for tests: sysfs, devices that are sparse files, and a small payload that is signed.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use siris_host::cmd::{Cmd, Tool};
use siris_ibu::keys::{Epoch, Role, SecretKey};
use siris_ibu::manifest::{BuildTime, Member, SCHEMA, Zfs};
use siris_ibu::signature::SignatureFile;
use siris_ibu::verity::{self, Salt};
use siris_ibu::{ByteSize, Manifest, Sha256, Version};
use siris_live::LIVE;
use siris_slots::gpt;
use siris_slots::guid::GuidSource;
use siris_slots::layout::{KeptEntry, Layout, SectorSize, Sizes};

use crate::host::Host;
use siris_live::load::KEYS;

const MIB: u64 = 1 << 20;

/// A machine whose files are in a temporary directory.
pub struct TestBox {
    dir: tempfile::TempDir,
    /// The machine.
    pub host: Host,
}

/// Whether ext4 file systems can be made here; where not, says so loudly. In CI that is a failure.
pub fn has_mkfs() -> bool {
    let there = Tool::MkfsExt4.is_present(None);
    if !there {
        assert!(std::env::var_os("CI").is_none(), "mkfs.ext4 is not installed: run `cargo xtask setup`");
        eprintln!("SKIPPED: mkfs.ext4 is not installed (Debian package e2fsprogs): run `cargo xtask setup`");
    }
    there
}

/// A manifest of a payload with these members.
pub fn manifest(root: &[u8], tree: &mut Vec<u8>, boot: &[u8]) -> Manifest {
    let uuid = "11223344-5566-7788-99aa-bbccddeeff00".parse().unwrap();
    let verity = verity::build(root, root.len() as u64, Salt::from_bytes([7; 32]), uuid, tree).unwrap();
    let member = |b: &[u8]| Member { size: ByteSize::from_bytes(b.len() as u64), sha256: Sha256::of(b) };
    let features: std::collections::BTreeSet<String> =
        ["embedded_data", "hole_birth", "vdev_zaps_v2"].map(str::to_owned).into();
    Manifest {
        schema: SCHEMA,
        product: "siris".parse().unwrap(),
        compatible: vec!["siris".parse().unwrap()],
        version: Version::new(1, 2, 3),
        lowest_replaces: Version::new(0, 0, 0),
        built: BuildTime::from_unix(0).unwrap(),
        kernel: "6.12".into(),
        slot_size_min: ByteSize::mib(8),
        key_epoch: Epoch(0),
        zfs: Zfs { version: "2.3.2".into(), features_read: features.clone(), features_write: features },
        tree: member(tree),
        boot: member(boot),
        root: member(root),
        verity,
        next_key: None,
    }
}

fn noise(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn boot_img() -> Vec<u8> {
    let mut boot = vec![0xcc; 512];
    boot[0x64] = 0xff;
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    boot
}

fn core_img() -> Vec<u8> {
    let mut core = vec![0; 512];
    core[510..].copy_from_slice(&[0x20, 0x08]);
    core.resize(30_000, 0xdd);
    core
}

impl TestBox {
    /// A live machine with a payload, and no disks.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        let this = Self { dir, host };
        let (root, boot, mut tree) = (noise(300 * 4096), noise(65 * 4096), Vec::new());
        let manifest = manifest(&root, &mut tree, &boot);
        let key = SecretKey::from_seed("test", Role::Development, Epoch(0), [1; 32]);
        let bytes = manifest.to_bytes().unwrap();
        let signature = SignatureFile::new(vec![key.sign(&bytes)]).to_bytes();
        let live = |name: &str| format!("{LIVE}/{name}");
        for (name, content) in
            [("manifest.toml", &bytes), ("manifest.sig", &signature), ("root", &root), ("tree", &tree), ("boot", &boot)]
        {
            this.put(&live(name), content);
        }
        this.put(&live("medium"), b"sr0\n");
        this.put(&format!("{KEYS}/test.pub"), &key.public().to_bytes());
        this.put("/usr/lib/siris/boot/boot.img", &boot_img());
        this.put("/usr/lib/siris/boot/core.img", &core_img());
        this.put("/usr/lib/siris/boot/BOOTX64.EFI", b"MZ...");
        this.put("/usr/lib/siris/boot/grub.cfg", b"# grub\n");
        this.put("/proc/cmdline", b"console=ttyS0 siris.live quiet\n");
        this
    }

    /// Where an absolute path of the machine lies.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// Puts a file.
    pub fn put(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Attaches an empty disk, fenced; its serial number is its name in capitals.
    pub fn disk(&self, name: &str, mib: u64) -> PathBuf {
        let sys = |file: &str| format!("/sys/block/{name}/{file}");
        let number = name.bytes().map(u64::from).sum::<u64>();
        self.put(&sys("size"), format!("{}\n", mib * MIB / 512).as_bytes());
        self.put(&sys("queue/logical_block_size"), b"512\n");
        self.put(&sys("ro"), b"1\n");
        self.put(&sys("diskseq"), format!("{number}\n").as_bytes());
        self.put(&sys("dev"), format!("8:{number}\n").as_bytes());
        self.put(&sys("device/model"), b"TESTDISK\n");
        self.put(&sys("serial"), format!("{}\n", name.to_uppercase()).as_bytes());
        self.stat(name, 0, 0);
        let path = self.path("/dev").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().set_len(mib * MIB).unwrap();
        path
    }

    /// Attaches a disk with an old system: an ext4 root on partition 8 of a GPT, dirty as after a power cut.
    pub fn old_system(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.disk(name, mib);
        self.put("/old/usr/lib/os-release", b"NAME=\"Old\"\nPRETTY_NAME=\"Old GNU/Linux 9 \x1b[31m(red)\"\n");
        self.put("/old/etc/hostname", b"node7\n");
        let interfaces = "auto eno1\niface eno1 inet static\n address 192.0.2.7/24\n gateway 192.0.2.1\n";
        self.put("/old/etc/network/interfaces", interfaces.as_bytes());
        let mib_of = ByteSize::mib;
        let sizes = Sizes { slot: mib_of(2), boot: mib_of(1), esp: mib_of(1), state_min: mib_of(1) };
        let mut raw = [1; 128];
        raw[32..40].copy_from_slice(&204_800u64.to_le_bytes());
        raw[40..48].copy_from_slice(&409_599u64.to_le_bytes());
        let kept = [KeptEntry::new(8, raw)];
        let (size, sector) = (mib_of(mib), SectorSize::S512);
        let layout = Layout::plan_beside(size, sector, &sizes, &GuidSource::Random, &kept).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        gpt::apply_kept(&mut open(), &layout, &kept).unwrap();
        Cmd::new(Tool::MkfsExt4)
            .args(["-q", "-F", "-L", "oldroot", "-E", "offset=104857600", "-d"])
            .arg(self.path("/old"))
            .arg(&path)
            .arg("100M")
            .run()
            .unwrap();
        // `needs_recovery`: the journal was not replayed.
        let (mut dev, at, mut word) = (open(), 104_857_600 + 1024 + 96, [0; 4]);
        dev.seek(SeekFrom::Start(at)).unwrap();
        dev.read_exact(&mut word).unwrap();
        word[0] |= 4;
        dev.seek(SeekFrom::Start(at)).unwrap();
        dev.write_all(&word).unwrap();
        path
    }

    /// Sets the counters of sectors written and discarded.
    pub fn stat(&self, name: &str, written: u64, discarded: u64) {
        let text = format!("10 0 80 1 0 0 {written} 0 0 1 1 0 0 {discarded} 0 0 0\n");
        self.put(&format!("/sys/block/{name}/stat"), text.as_bytes());
    }

    /// Digest of a device.
    pub fn digest(&self, name: &str) -> Sha256 {
        Sha256::of_reader(File::open(self.path("/dev").join(name)).unwrap()).unwrap()
    }
}

/// Answers that install onto `disk`.
pub fn answers(disk: &str) -> String {
    format!(
        "schema = 1\n[target]\ndisk = \"{disk}\"\nslot-size = \"16MiB\"\n[identity]\nrole = \"cloud\"\n\
         hostname = \"box1\"\n[access]\nssh-keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA0123456789 me\"]\n"
    )
}
