//! The payload and the artefacts: boot image, signed manifest, disk image.
//!
//! Owns: what goes on the boot partition, what the manifest says, and the files under an artefact's final name.
//! Never: writes a slot itself; `siris-slots` does that here as everywhere.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Tool};
use siris_host::files::write_atomic;
use siris_ibu::keys::Epoch;
use siris_ibu::manifest::{BuildTime, Member, SCHEMA, TRAILER, Zfs};
use siris_ibu::verity::Verity;
use siris_ibu::{ByteSize, Manifest, Sha256, SignedManifest};
use siris_slots::compose::{BiosCode, ComposeInput, write_disk};
use siris_slots::device::Zeros;
use siris_slots::fat::{self, FatFile, FatSpec};
use siris_slots::guid::GuidSource;
use siris_slots::layout::{Layout, Part};
use siris_slots::writer::{Payload, Proof, WriteOptions};
use siris_slots::{SectorSize, Sizes};

use crate::cache::{Cache, Key, Layer};
use crate::error::BuildError;
use crate::keys::Signer;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::roots::{builder, megabytes};

/// Raised when what is made here changes.
const RECIPE: u32 = 3;

pub(crate) fn fault(what: &'static str, error: impl std::fmt::Display) -> BuildError {
    BuildError::Payload { what, message: error.to_string() }
}

pub(crate) fn open(path: &Path) -> Result<File, BuildError> {
    File::open(path).map_err(BuildError::io("open", path))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(BuildError::io("read", path))
}

/// The layers a payload is made of.
#[derive(Debug, Clone, Copy)]
pub struct PayloadInput<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The base root, which has the kernel.
    pub base: &'a Layer,
    /// Kernel release.
    pub kernel: &'a str,
    /// The initrd.
    pub initrd: &'a Layer,
    /// The root image.
    pub root: &'a Layer,
    /// GRUB.
    pub grub: &'a Layer,
    /// The builder root.
    pub builder: &'a Layer,
    /// The version of everything.
    pub version: &'a siris_ibu::Version,
    /// Time stamp.
    pub epoch: u64,
}

impl PayloadInput<'_> {
    fn verity(&self) -> Result<Verity, BuildError> {
        serde_json::from_slice(&read(&self.root.path.join("verity.json"))?)
            .map_err(|e| fault("the root image's verity record", e))
    }

    /// The layer with `boot.fat`: kernel, initrd, `slot.cfg`, and the digests GRUB checks before it uses any of them.
    ///
    /// # Errors
    /// When a part is missing or does not fit.
    pub fn boot(&self, cache: &Cache, progress: &Progress) -> Result<Layer, BuildError> {
        let slot_cfg = slot_cfg(&self.verity()?, &self.profile.kernel_options);
        let key = Key::new()
            .with("recipe", RECIPE)
            .with("base", self.base.digest)
            .with("initrd", self.initrd.digest)
            .with("slot.cfg", Sha256::of(slot_cfg.as_bytes()));
        cache.layer("bootimage", &key, |half| {
            let step = progress.step("boot image");
            let kernel = read(&self.base.path.join("root/boot").join(format!("vmlinuz-{}", self.kernel)))?;
            let initrd = read(&self.initrd.path.join("initrd"))?;
            let files = [("vmlinuz", &kernel[..]), ("initrd", &initrd[..]), ("slot.cfg", slot_cfg.as_bytes())];
            let hashes: String = files.iter().map(|(name, bytes)| format!("{}  {name}\n", Sha256::of(bytes))).collect();
            let path = half.join("boot.fat");
            let mut out = File::create_new(&path).map_err(BuildError::io("make", &path))?;
            let spec = FatSpec {
                size: Sizes::default().boot,
                sector: SectorSize::S4096,
                label: "SIRIS_BOOT",
                volume_id: 0x5149_5249,
            };
            out.set_len(spec.size.bytes()).map_err(BuildError::io("size", &path))?;
            let mut readers: Vec<(&str, &[u8])> = files.to_vec();
            readers.push(("hashes", hashes.as_bytes()));
            let mut fat_files: Vec<FatFile<'_>> =
                readers.iter_mut().map(|(path, content)| FatFile { path, content }).collect();
            let used =
                fat::build(&mut out, &spec, &mut fat_files, Zeros::Skip).map_err(|e| fault("the boot image", e))?;
            // What is free in it is not part of the image: nobody fetches, hashes or writes it.
            out.set_len(used).map_err(BuildError::io("size", &path))?;
            step.done(format!("kernel {}, initrd {}", megabytes(kernel.len() as u64), megabytes(initrd.len() as u64)));
            Ok(())
        })
    }

    /// The manifest of this payload.
    fn manifest(&self, boot: &Layer, key_epoch: Epoch) -> Result<Manifest, BuildError> {
        let member = |path: &Path| -> Result<Member, BuildError> {
            let sha256 = Sha256::of_reader(&mut BufReader::with_capacity(1 << 20, open(path)?))
                .map_err(BuildError::io("read", path))?;
            let size = fs::metadata(path).map_err(BuildError::io("look at", path))?.len();
            Ok(Member { size: ByteSize::from_bytes(size), sha256 })
        };
        let root = member(&self.root.path.join("root.erofs"))?;
        let tree = member(&self.root.path.join("root.tree"))?;
        let least = (root.size.bytes() + tree.size.bytes() + TRAILER.bytes()).next_multiple_of(1 << 20);
        let product = || self.profile.product.parse().map_err(|e| fault("the product's name", e));
        let features = self.zfs_features()?;
        let epoch = i64::try_from(self.epoch).map_err(|e| fault("the time stamp", e))?;
        Ok(Manifest {
            schema: SCHEMA,
            product: product()?,
            compatible: vec![product()?],
            version: self.version.clone(),
            lowest_replaces: self.profile.lowest_replaces.clone(),
            built: BuildTime::from_unix(epoch).map_err(|e| fault("the time stamp", e))?,
            kernel: self.kernel.to_owned(),
            slot_size_min: ByteSize::from_bytes(least),
            key_epoch,
            zfs: Zfs { version: self.zfs_version()?, features_read: features.clone(), features_write: features },
            tree,
            boot: member(&boot.path.join("boot.fat"))?,
            root,
            verity: self.verity()?,
            next_key: None,
        })
    }

    /// The manifest, signed and verified.
    ///
    /// # Errors
    /// When a part cannot be read, the manifest is not sound, or it is not signed.
    pub(crate) fn signed(&self, boot: &Layer, signer: &Signer) -> Result<SignedManifest, BuildError> {
        let bytes = self.manifest(boot, signer.epoch())?.to_bytes().map_err(|e| fault("the manifest", e))?;
        signer.sign(&bytes)
    }

    fn zfs_version(&self) -> Result<String, BuildError> {
        let status = self.base.path.join("root/var/lib/dpkg/status");
        let text = String::from_utf8_lossy(&read(&status)?).into_owned();
        let stanza = text.split("\n\n").find(|s| s.starts_with("Package: zfsutils-linux\n"));
        let version = stanza.and_then(|s| s.lines().find_map(|l| l.strip_prefix("Version: ")));
        version.map(str::to_owned).ok_or_else(|| BuildError::Incomplete { what: "zfsutils-linux".into() })
    }

    /// Every feature the image's OpenZFS knows, from the list it ships for its own release line.
    fn zfs_features(&self) -> Result<BTreeSet<String>, BuildError> {
        let version = self.zfs_version()?;
        let line: Vec<&str> = version.split(['.', '-']).take(2).collect();
        let name = format!("openzfs-{}-linux", line.join("."));
        let path = self.base.path.join("root/usr/share/zfs/compatibility.d").join(&name);
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        let words = text.lines().filter(|l| !l.starts_with('#')).flat_map(|l| l.split([',', ' ', '\t']));
        let features: BTreeSet<String> = words.map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect();
        if features.is_empty() {
            return Err(BuildError::Incomplete { what: format!("features in {}", path.display()) });
        }
        Ok(features)
    }

    /// Signs and writes everything under `out`, whole or not at all; a second call with the same inputs does nothing.
    ///
    /// # Errors
    /// When something cannot be written; nothing is then under a final name that was not there before.
    pub(crate) fn artefacts(
        &self,
        boot: &Layer,
        signer: &Signer,
        sbom: &str,
        out: &Path,
        cache: &Cache,
        progress: &Progress,
    ) -> Result<Artefacts, BuildError> {
        let artefacts = Artefacts::new(out, &self.profile.name, self.version);
        let state = self.state_image(cache)?;
        let stamp = Key::new()
            .with("recipe", RECIPE)
            .with("root", self.root.digest)
            .with("boot", boot.digest)
            .with("state", state.digest)
            .with("grub", self.grub.digest)
            .with("key", signer.id())
            .with("profile", format!("{:?}", self.profile))
            .digest()
            .to_string();
        if artefacts.is_current(&stamp) {
            return Ok(artefacts);
        }
        let step = progress.step("disk image");
        fs::create_dir_all(out).map_err(BuildError::io("make", out))?;
        // What was there is no longer what its stamp says.
        let _ = fs::remove_file(&artefacts.stamp);
        let signed = self.signed(boot, signer)?;
        self.disk(&signed, boot, &state, &artefacts.raw)?;
        write_atomic(&artefacts.manifest, signed.bytes())?;
        write_atomic(&artefacts.signature, signed.signature_bytes())?;
        write_atomic(&artefacts.sbom, sbom.as_bytes())?;
        write_atomic(&artefacts.sizes, &read(&self.root.path.join("sizes"))?)?;
        artefacts.link()?;
        write_atomic(&artefacts.stamp, stamp.as_bytes())?;
        step.done(artefacts.raw.display().to_string());
        Ok(artefacts)
    }

    fn sizes(&self) -> Sizes {
        Sizes { slot: self.profile.slot_size, ..Sizes::default() }
    }

    fn guids(&self) -> GuidSource {
        GuidSource::Seed(Sha256::of(format!("{}{}", self.profile.name, self.root.digest).as_bytes()))
    }

    /// The state partition: a file system with the install-time defaults of the profile.
    fn state_image(&self, cache: &Cache) -> Result<Layer, BuildError> {
        let layout = Layout::plan(self.profile.raw_size, SectorSize::S512, &self.sizes(), &self.guids())
            .map_err(|e| fault("the disk layout", e))?;
        let size = layout.len(Part::State);
        let settings = format!("schema = 1\nrole = \"{}\"\n", self.profile.role.as_str());
        let key = Key::new()
            .with("recipe", RECIPE)
            .with("builder", self.builder.digest)
            .with("size", size)
            .with("epoch", self.epoch)
            .with("settings", &settings);
        let uuid = crate::rootfs::uuid_of(&key.digest());
        cache.layer("state", &key, |half| {
            let tree = half.join("tree");
            let dir = tree.join("persist/etc/siris");
            fs::create_dir_all(&dir).map_err(BuildError::io("make", &dir))?;
            let file = dir.join("config.toml");
            fs::write(&file, settings).map_err(BuildError::io("write", &file))?;
            let root = builder(self.builder).bind(half, "/siris/out");
            let log = half.join("log");
            Cmd::new(Tool::Bash)
                .clean_env()
                .env("SOURCE_DATE_EPOCH", self.epoch.to_string())
                .env("TZ", "UTC")
                .args(["-euc", MAKE_STATE, "state", &size.to_string(), &uuid, &self.epoch.to_string()])
                .in_root(&root)
                .log(&log)
                .run()
                .map_err(|source| BuildError::Step { step: "state partition", log: log.clone(), source })
        })
    }

    fn disk(&self, signed: &SignedManifest, boot: &Layer, state: &Layer, path: &Path) -> Result<(), BuildError> {
        let half = path.with_extension("raw.half");
        let written = || -> Result<(), BuildError> {
            let mut file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&half)
                .map_err(BuildError::io("make", &half))?;
            file.set_len(self.profile.raw_size.bytes()).map_err(BuildError::io("size", &half))?;
            let grub = |name: &str| read(&self.grub.path.join(name));
            let (boot_img, core_img, efi) = (grub("boot.img")?, grub("core.img")?, grub("BOOTX64.EFI")?);
            let config = read(&self.root.path.join("grub.cfg"))?;
            let (mut efi, mut config) = (&efi[..], &config[..]);
            let reader = |path: &Path| -> Result<Box<dyn Read>, BuildError> {
                Ok(Box::new(BufReader::with_capacity(1 << 20, open(path)?)))
            };
            let mut state = reader(&state.path.join("state.ext4"))?;
            let (mut tree, mut boot, mut root) = (
                reader(&self.root.path.join("root.tree"))?,
                reader(&boot.path.join("boot.fat"))?,
                reader(&self.root.path.join("root.erofs"))?,
            );
            let input = ComposeInput {
                sector: SectorSize::S512,
                sizes: self.sizes(),
                guids: self.guids(),
                esp_files: vec![
                    FatFile { path: "siris/grub.cfg", content: &mut config },
                    FatFile { path: "EFI/BOOT/BOOTX64.EFI", content: &mut efi },
                ],
                bios: Some(BiosCode { boot_img: &boot_img, core_img: &core_img }),
                signed,
                payload: Payload { tree: &mut tree, boot: &mut boot, root: &mut root },
                state: Some(&mut state),
                options: WriteOptions { zeros: Zeros::Skip, proof: Proof::Passing },
            };
            write_disk(&mut file, input, &mut |_| {}).map_err(|e| fault("the disk image", chain(&e)))?;
            fs::rename(&half, path).map_err(BuildError::io("put in place", path))
        };
        written().inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&half);
        })
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// In the builder: `$1` bytes, `$2` UUID, `$3` epoch. A fixed seed and no lazy initialisation: the same bytes again.
const MAKE_STATE: &str = r#"umask 022
chmod -R u=rwX,go=rX /siris/out/tree
chown -R 0:0 /siris/out/tree
find /siris/out/tree -exec touch -h -d @"$3" {} +
truncate -s "$1" /siris/out/state.ext4
mkfs.ext4 -q -F -L SIRIS_STATE -m 1 -U "$2" -E "hash_seed=$2,nodiscard,lazy_itable_init=0,lazy_journal_init=0" \
    -O '^metadata_csum_seed,^orphan_file' -d /siris/out/tree /siris/out/state.ext4
rm -rf /siris/out/tree"#;

/// What GRUB runs after it has checked the boot files of a slot. The file is the same in both slots: the partitions
/// come from what GRUB booted from.
fn slot_cfg(verity: &Verity, options: &[String]) -> String {
    format!(
        "# Run by /siris/grub.cfg: $boot, $slot, $siris_root and $siris_state are set there.\n\
         linux $boot/vmlinuz root=/dev/mapper/root rootfstype=erofs ro roothash={} \
         systemd.verity_root_data=PARTUUID=$siris_root systemd.verity_root_hash=PARTUUID=$siris_root \
         systemd.verity_root_options=hash-offset={},panic-on-corruption \
         siris.slot=$slot siris.root=$siris_root siris.state=$siris_state {}\n\
         initrd $boot/initrd\nboot\n",
        verity.root_hash,
        verity.data_len(),
        options.join(" ")
    )
}

/// The files a build leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artefacts {
    /// The disk image, `PROFILE-VERSION.raw`.
    pub raw: PathBuf,
    /// A link to it that stays, `latest.raw`.
    pub latest: PathBuf,
    /// The manifest.
    pub manifest: PathBuf,
    /// Its signatures.
    pub signature: PathBuf,
    /// The package list, CycloneDX JSON.
    pub sbom: PathBuf,
    /// What each package costs, a line each.
    pub sizes: PathBuf,
    stamp: PathBuf,
}

impl Artefacts {
    fn new(out: &Path, profile: &str, version: &siris_ibu::Version) -> Self {
        Artefacts {
            raw: out.join(format!("{profile}-{version}.raw")),
            latest: out.join("latest.raw"),
            manifest: out.join("manifest.toml"),
            signature: out.join("manifest.sig"),
            sbom: out.join(format!("{profile}-{version}.cdx.json")),
            sizes: out.join("sizes.txt"),
            stamp: out.join(".stamp"),
        }
    }

    /// Digest of the root image, from the manifest.
    ///
    /// # Errors
    /// When the manifest cannot be read.
    pub fn root_sha256(&self) -> Result<Sha256, BuildError> {
        Ok(Manifest::parse(&read(&self.manifest)?).map_err(|e| fault("the manifest", e))?.root.sha256)
    }

    fn is_current(&self, stamp: &str) -> bool {
        let all = [&self.raw, &self.latest, &self.manifest, &self.signature, &self.sbom, &self.sizes];
        all.iter().all(|path| path.exists()) && fs::read_to_string(&self.stamp).is_ok_and(|text| text == stamp)
    }

    fn link(&self) -> Result<(), BuildError> {
        link_latest(&self.raw, &self.latest)
    }
}

/// Makes `latest` a link to the file beside it that `artefact` is.
pub(crate) fn link_latest(artefact: &Path, latest: &Path) -> Result<(), BuildError> {
    let mut beside = latest.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let name = artefact.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(name, &beside).map_err(BuildError::io("link", &beside))?;
    fs::rename(&beside, latest).map_err(BuildError::io("put in place", latest))
}
