//! The carriers of a payload beside the disk image: the bundle, and the installer's medium that holds one.
//!
//! Owns: how members are compressed, what lies on the medium and in which order. Never: changes a member: manifest
//! and digests are those of the disk image.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Tool};
use siris_host::files::write_atomic;
use siris_ibu::bundle::{self, Bodies};
use siris_ibu::{ByteSize, Sha256, SignedManifest};
use siris_installer::answers::Answers;
use siris_installer::apply::MEDIUM_DIGITS;
use siris_installer::run::id_of;
use siris_slots::SectorSize;
use siris_slots::device::Zeros;
use siris_slots::fat::{self, FatFile, FatSpec};

use crate::cache::{Cache, Key, Layer};
use crate::deltas::{self, Older, PatchArtefact};
use crate::error::BuildError;
use crate::image::{Layers, Request};
use crate::parts::LiveInput;
use crate::payload::{fault, link_latest, open, read};
use crate::progress::Progress;
use crate::roots::{builder, megabytes};

/// Raised when what is made here changes.
const RECIPE: u32 = 1;

/// An installer's medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoArtefacts {
    /// The image, `PROFILE-VERSION.iso`.
    pub iso: PathBuf,
    /// A link to it that stays, `latest.iso`.
    pub latest: PathBuf,
    /// Its size.
    pub size: ByteSize,
    /// The bytes that the bundle on it has.
    pub bundle: ByteSize,
}

/// A bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IbuArtefacts {
    /// The file, `PROFILE-VERSION.ibu`.
    pub ibu: PathBuf,
    /// A link to it that stays, `latest.ibu`.
    pub latest: PathBuf,
    /// What boxes fetch single blocks from, `PROFILE-VERSION.blocks`.
    pub blocks: PathBuf,
    /// Patches from older bundles.
    pub patches: Vec<PatchArtefact>,
    /// Its size.
    pub size: ByteSize,
}

/// Builds a bundle, and what lies beside it on a server.
///
/// # Errors
/// [`BuildError`]; nothing is then left under the final name.
pub fn ibu(request: &Request, older: &Older, progress: &Progress) -> Result<IbuArtefacts, BuildError> {
    let layers = Layers::make(request, progress)?;
    let cache = &layers.session.cache;
    let signed = layers.payload(request).signed(&layers.boot, &layers.signer)?;
    let bundle = bundle_layer(&layers, &signed, cache, progress)?;
    let blocks = deltas::blocks_layer(&layers, &signed, cache, progress)?;
    let out = &request.out;
    fs::create_dir_all(out).map_err(BuildError::io("make", out))?;
    let stem = format!("{}-{}", layers.session.profile.name, request.version);
    let work = tempfile::tempdir_in(out).map_err(BuildError::io("make a directory in", out))?;
    // The bundle last: who sees it finds the rest.
    for (layer, ending) in [(&blocks, "blocks"), (&bundle, "ibu")] {
        let (from, half) = (layer.path.join(format!("system.{ending}")), work.path().join(ending));
        fs::copy(&from, &half).map_err(BuildError::io("copy", &from))?;
        let path = out.join(format!("{stem}.{ending}"));
        fs::rename(&half, &path).map_err(BuildError::io("put in place", &path))?;
        link_latest(&path, &out.join(format!("latest.{ending}")))?;
    }
    let patches = deltas::patches(&layers, &signed, older, out, &stem, progress)?;
    let (ibu, blocks) = (out.join(format!("{stem}.ibu")), out.join(format!("{stem}.blocks")));
    let size = fs::metadata(&ibu).map_err(BuildError::io("look at", &ibu))?.len();
    Ok(IbuArtefacts { ibu, blocks, patches, latest: out.join("latest.ibu"), size: ByteSize::from_bytes(size) })
}

/// Builds an installer's medium, with answers on it if there are any.
///
/// # Errors
/// [`BuildError`]; nothing is then left under the final name.
pub fn iso(request: &Request, answers: Option<&Path>, progress: &Progress) -> Result<IsoArtefacts, BuildError> {
    let answers = answers.map(Answered::read).transpose()?;
    let layers = Layers::make(request, progress)?;
    let cache = &layers.session.cache;
    let parts = layers.parts(progress);
    let profiles = layers.session.profiles.dir();
    let live = parts.live_initrd(&LiveInput {
        base: &layers.base,
        agent: &layers.agent,
        kernel: &layers.kernel,
        initrds: &profiles.join("base/initrd"),
        fence: &profiles.join("base/files/usr/lib/udev/rules.d/01-siris-fence.rules"),
        keys: &layers.signer.public_files,
    })?;
    let grub = parts.grub_of_medium()?;
    let signed = layers.payload(request).signed(&layers.boot, &layers.signer)?;
    let bundle = bundle_layer(&layers, &signed, cache, progress)?;
    let step = progress.step("installer medium");
    fs::create_dir_all(&request.out).map_err(BuildError::io("make", &request.out))?;
    let name = format!("{}-{}.iso", layers.session.profile.name, request.version);
    let (iso, latest) = (request.out.join(&name), request.out.join("latest.iso"));
    let work = tempfile::tempdir_in(&request.out).map_err(BuildError::io("make a directory in", &request.out))?;
    let medium = Medium { layers: &layers, live: &live, grub: &grub, signed: &signed, answers: answers.as_ref() };
    medium.lay_out(&bundle, work.path())?;
    medium.write(work.path())?;
    fs::rename(work.path().join("medium.iso"), &iso).map_err(BuildError::io("put in place", &iso))?;
    link_latest(&iso, &latest)?;
    let len = |path: &Path| -> Result<ByteSize, BuildError> {
        Ok(ByteSize::from_bytes(fs::metadata(path).map_err(BuildError::io("look at", path))?.len()))
    };
    let artefacts = IsoArtefacts { size: len(&iso)?, bundle: len(&bundle.path.join("system.ibu"))?, iso, latest };
    step.done(megabytes(artefacts.size.bytes()));
    Ok(artefacts)
}

/// In the builder: compresses `/siris/in/$1` to `/siris/out/$2`, as hard as `$3` says. The output is the same for any
/// number of threads.
const COMPRESS: &str = r#"zstd -q -T0 "-$3" --long=24 --no-check "/siris/in/$1" -o "/siris/out/$2""#;

/// How hard members are compressed: what is made once and fetched by many is worth some minutes.
fn level(layers: &Layers) -> &'static str {
    if layers.signer.is_release() { "19" } else { "9" }
}

/// The layer with `system.ibu`.
fn bundle_layer(
    layers: &Layers,
    signed: &SignedManifest,
    cache: &Cache,
    progress: &Progress,
) -> Result<Layer, BuildError> {
    let key = Key::new()
        .with("recipe", RECIPE)
        .with("script", COMPRESS)
        .with("level", level(layers))
        .with("builder", layers.builder.digest)
        .with("manifest", Sha256::of(signed.bytes()))
        .with("signatures", Sha256::of(signed.signature_bytes()));
    cache.layer("bundle", &key, |half| {
        let step = progress.step("bundle");
        for (dir, from, to) in [(&layers.boot.path, "boot.fat", "boot"), (&layers.root.path, "root.erofs", "root")] {
            let root = builder(&layers.builder).bind(dir, "/siris/in").bind(half, "/siris/out");
            let log = half.join("log");
            Cmd::new(Tool::Bash)
                .clean_env()
                .args(["-euc", COMPRESS, "compress", from, to, level(layers)])
                .in_root(&root)
                .log(&log)
                .run()
                .map_err(|source| BuildError::Step { step: "bundle", log: log.clone(), source })?;
        }
        let body = |path: PathBuf| -> Result<(u64, BufReader<File>), BuildError> {
            let file = open(&path)?;
            let len = file.metadata().map_err(BuildError::io("look at", &path))?.len();
            Ok((len, BufReader::with_capacity(1 << 20, file)))
        };
        let (mut tree, mut boot, mut root) =
            (body(layers.root.path.join("root.tree"))?, body(half.join("boot"))?, body(half.join("root"))?);
        let path = half.join("system.ibu");
        let mut out = BufWriter::new(File::create(&path).map_err(BuildError::io("make", &path))?);
        let bodies = Bodies { tree: (tree.0, &mut tree.1), boot: (boot.0, &mut boot.1), root: (root.0, &mut root.1) };
        bundle::write(&mut out, signed.bytes(), signed.signature_bytes(), bodies)
            .and_then(|()| out.flush())
            .map_err(BuildError::io("write", &path))?;
        for name in ["boot", "root"] {
            fs::remove_file(half.join(name)).map_err(BuildError::io("remove", half))?;
        }
        let size = fs::metadata(&path).map_err(BuildError::io("look at", &path))?.len();
        step.done(megabytes(size));
        Ok(())
    })
}

/// Everything that goes on a medium but the bundle.
struct Medium<'a> {
    layers: &'a Layers,
    live: &'a Layer,
    grub: &'a Layer,
    signed: &'a SignedManifest,
    answers: Option<&'a Answered>,
}

/// Answers that go on a medium, found sound.
struct Answered {
    bytes: Vec<u8>,
    answers: Answers,
}

impl Answered {
    fn read(path: &Path) -> Result<Self, BuildError> {
        let bytes = read(path)?;
        let answers = Answers::parse(&bytes).map_err(|source| BuildError::Answers { path: path.to_owned(), source })?;
        Ok(Self { bytes, answers })
    }
}

impl Medium<'_> {
    /// The id that an install from this medium has: a disk on which it was finished says so in its boot environment.
    fn id(&self) -> String {
        let Some(Answered { bytes, answers }) = self.answers else { return String::new() };
        let id = answers.id.clone();
        id.unwrap_or_else(|| id_of(bytes, Sha256::of(self.signed.bytes()))).to_string()
    }

    fn lay_out(&self, bundle: &Layer, work: &Path) -> Result<(), BuildError> {
        let siris = work.join("tree/siris");
        fs::create_dir_all(&siris).map_err(BuildError::io("make", &siris))?;
        let kernel = self.layers.base.path.join("root/boot").join(format!("vmlinuz-{}", self.layers.kernel));
        for (from, to) in [
            (kernel, "vmlinuz"),
            (self.live.path.join("initrd"), "initrd"),
            (self.grub.path.join("eltorito.img"), "eltorito.img"),
            (bundle.path.join("system.ibu"), "system.ibu"),
        ] {
            fs::copy(&from, siris.join(to)).map_err(BuildError::io("copy", &from))?;
        }
        let template = self.layers.session.profiles.dir().join("base/boot/iso.cfg");
        let digest = Sha256::of(self.signed.bytes()).to_string();
        let config = String::from_utf8_lossy(&read(&template)?)
            .replace("@ID@", &self.id())
            .replace("@MANIFEST@", &digest)
            .replace("@MEDIUM@", &digest[..MEDIUM_DIGITS])
            .replace("@UNATTENDED@", if self.answers.is_some() { "yes" } else { "no" })
            .replace("@OPTIONS@", &self.options());
        write_atomic(&siris.join("grub.cfg"), config.as_bytes())?;
        if let Some(answers) = self.answers {
            write_atomic(&work.join("tree/install.toml"), &answers.bytes)?;
        }
        let boot_hybrid = self.grub.path.join("boot_hybrid.img");
        fs::copy(&boot_hybrid, work.join("boot_hybrid.img")).map_err(BuildError::io("copy", &boot_hybrid))?;
        self.efi_image(&work.join("efi.img"))
    }

    /// The profile's kernel options but for consoles, which the menu chooses.
    fn options(&self) -> String {
        let options = self.layers.session.profile.kernel_options.iter();
        options.filter(|option| !option.starts_with("console=")).cloned().collect::<Vec<_>>().join(" ")
    }

    /// The FAT image that UEFI firmware looks into.
    fn efi_image(&self, path: &Path) -> Result<(), BuildError> {
        let efi = read(&self.grub.path.join("BOOTX64.EFI"))?;
        let size = ByteSize::from_bytes((efi.len() as u64 + (1 << 20)).next_multiple_of(1 << 20));
        let spec = FatSpec { size, sector: SectorSize::S512, label: "SIRIS_EFI", volume_id: 0x5149_5250 };
        let mut out =
            File::options().read(true).write(true).create_new(true).open(path).map_err(BuildError::io("make", path))?;
        out.set_len(size.bytes()).map_err(BuildError::io("size", path))?;
        let mut content = &efi[..];
        let mut files = [FatFile { path: "EFI/BOOT/BOOTX64.EFI", content: &mut content }];
        fat::build(&mut out, &spec, &mut files, Zeros::Skip).map(drop).map_err(|e| fault("the medium's EFI image", e))
    }

    fn write(&self, work: &Path) -> Result<(), BuildError> {
        let root = builder(&self.layers.builder).bind(work, "/siris/medium");
        let log = work.join("log");
        Cmd::new(Tool::Bash)
            .clean_env()
            .env("SOURCE_DATE_EPOCH", self.layers.lock.epoch.to_string())
            .env("TZ", "UTC")
            .args(["-euc", MAKE_ISO, "iso", &self.layers.lock.epoch.to_string()])
            .in_root(&root)
            .log(&log)
            .run()
            .map_err(|source| BuildError::Step { step: "installer medium", log, source })
    }
}

/// In the builder: `$1` epoch. What is read first lies first: boot loader, kernel, initrd, then the bundle, in one run.
const MAKE_ISO: &str = r#"cd /siris/medium
chown -R 0:0 tree
find tree -type d -exec chmod 755 {} +
find tree -type f -exec chmod 644 {} +
find tree -exec touch -h -d @"$1" {} +
xorriso -as mkisofs -quiet -r -V SIRIS_INSTALL --modification-date="$(date -u -d @"$1" +%Y%m%d%H%M%S00)" \
    --grub2-mbr boot_hybrid.img -partition_offset 16 \
    -appended_part_as_gpt -append_partition 2 C12A7328-F81F-11D2-BA4B-00A0C93EC93B efi.img \
    -iso_mbr_part_type EBD0A0A2-B9E5-4433-87C0-68B6B72699C7 \
    -c siris/boot.cat -b siris/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info \
    -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot \
    --sort-weight 40 siris/eltorito.img --sort-weight 30 siris/grub.cfg --sort-weight 20 siris/vmlinuz \
    --sort-weight 10 siris/initrd --sort-weight -10 siris/system.ibu \
    -o medium.iso tree"#;
