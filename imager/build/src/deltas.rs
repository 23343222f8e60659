//! What lies beside a bundle on a server, so that boxes need not fetch all of it: the blocks file, and patches from
//! older bundles.
//!
//! Never: signs anything. A delta is not trusted by anyone.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use siris_ibu::bundle::{Bundle, Members};
use siris_ibu::delta::patch::{self, Side};
use siris_ibu::delta::{Joined, Shape, blocks};
use siris_ibu::digest::HashingWriter;
use siris_ibu::keys::{Epoch, PublicKey};
use siris_ibu::signature::Policy;
use siris_ibu::{ByteSize, Manifest, MemberKind, SignedManifest, Version};

use crate::cache::{Cache, Key, Layer};
use crate::error::BuildError;
use crate::image::Layers;
use crate::payload::{link_latest, open};
use crate::progress::Progress;
use crate::roots::megabytes;

/// Raised when what is made here changes.
const RECIPE: u32 = 1;
/// How hard frames of a blocks file are compressed, while developing and in a release: it is as large as the bundle.
const BLOCKS_LEVELS: [i32; 2] = [3, 19];
/// A patch is small, and made once for thousands of boxes.
const PATCH_LEVEL: i32 = 19;

/// Bundles that boxes may have now, and the keys that they are signed with.
#[derive(Debug, Clone, Default)]
pub struct Older {
    /// Patches are made from these.
    pub bundles: Vec<PathBuf>,
    /// Whose bundles are believed.
    pub trusted: Vec<PublicKey>,
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchArtefact {
    /// The version that it makes the new one of.
    pub from: Version,
    /// The file, `PROFILE-VERSION.from-OLD.patch`.
    pub path: PathBuf,
    /// Its size.
    pub size: ByteSize,
}

/// An image whose halves are files that were unpacked.
pub type Image = Joined<File, File>;

fn new_image(layers: &Layers, manifest: &Manifest) -> Result<Image, BuildError> {
    let (boot, root) = (open(&layers.boot.path.join("boot.fat"))?, open(&layers.root.path.join("root.erofs"))?);
    Ok(Joined { boot, root, shape: Shape::of(manifest) })
}

/// The layer with `system.blocks`.
pub(crate) fn blocks_layer(
    layers: &Layers,
    signed: &SignedManifest,
    cache: &Cache,
    progress: &Progress,
) -> Result<Layer, BuildError> {
    let manifest = signed.manifest();
    let level = BLOCKS_LEVELS[usize::from(layers.signer.is_release())];
    let key = Key::new()
        .with("recipe", RECIPE)
        .with("level", level)
        .with("frame", blocks::FRAME_BLOCKS)
        .with("boot", manifest.boot.sha256)
        .with("root", manifest.verity.root_hash);
    cache.layer("blocks", &key, |half| {
        let step = progress.step("blocks");
        let mut image = new_image(layers, manifest)?;
        let path = half.join("system.blocks");
        let mut out = BufWriter::new(File::create(&path).map_err(BuildError::io("make", &path))?);
        let mut scratch = tempfile::tempfile_in(half).map_err(BuildError::io("make a file in", half))?;
        blocks::write(&mut out, &mut scratch, &mut image, Shape::of(manifest), &manifest.verity, level)
            .and_then(|()| out.flush())
            .map_err(BuildError::io("write", &path))?;
        step.done(megabytes(fs::metadata(&path).map_err(BuildError::io("look at", &path))?.len()));
        Ok(())
    })
}

/// Makes the patches from older bundles, beside the new one.
pub(crate) fn patches(
    layers: &Layers,
    signed: &SignedManifest,
    older: &Older,
    out: &Path,
    stem: &str,
    progress: &Progress,
) -> Result<Vec<PatchArtefact>, BuildError> {
    older.bundles.iter().map(|bundle| one_patch(layers, signed, bundle, older, out, stem, progress)).collect()
}

fn one_patch(
    layers: &Layers,
    signed: &SignedManifest,
    bundle: &Path,
    older: &Older,
    out: &Path,
    stem: &str,
    progress: &Progress,
) -> Result<PatchArtefact, BuildError> {
    let step = progress.step("patch");
    let work = tempfile::tempdir_in(out).map_err(BuildError::io("make a directory in", out))?;
    let (old_manifest, mut old) = unpack(bundle, &older.trusted, work.path())?;
    let (new_manifest, mut new) = (signed.manifest(), new_image(layers, signed.manifest())?);
    let half = work.path().join("patch");
    let mut file = BufWriter::new(File::create(&half).map_err(BuildError::io("make", &half))?);
    let from = Side { shape: old.shape, blocks: &mut old, verity: &old_manifest.verity };
    let to = Side { shape: new.shape, blocks: &mut new, verity: &new_manifest.verity };
    patch::write(&mut file, from, to, PATCH_LEVEL)
        .and_then(|()| file.flush())
        .map_err(BuildError::io("write", &half))?;
    let ending = format!("from-{}.patch", old_manifest.version);
    let path = out.join(format!("{stem}.{ending}"));
    fs::rename(&half, &path).map_err(BuildError::io("put in place", &path))?;
    link_latest(&path, &out.join(format!("latest.{ending}")))?;
    let size = fs::metadata(&path).map_err(BuildError::io("look at", &path))?.len();
    step.done(format!("from {}: {}", old_manifest.version, megabytes(size)));
    Ok(PatchArtefact { from: old_manifest.version, path, size: ByteSize::from_bytes(size) })
}

/// Unpacks a bundle into the files `tree`, `boot` and `root` of `work`, each compared with what was signed.
///
/// # Errors
/// When the bundle cannot be read, is not signed by a trusted key, or a file of that name is there.
pub fn unpack(bundle: &Path, trusted: &[PublicKey], work: &Path) -> Result<(Manifest, Image), BuildError> {
    let sound = |error: siris_ibu::bundle::BundleError| BuildError::OldBundle {
        path: bundle.to_owned(),
        source: Box::new(error),
    };
    let source = BufReader::with_capacity(1 << 20, open(bundle)?);
    let policy = Policy { allow_development: true, min_epoch: Epoch(0) };
    let bundle_read = Bundle::open(source, trusted, policy).map_err(sound)?;
    let manifest = bundle_read.signed().manifest().clone();
    let Members { mut tree, mut boot, mut root } = bundle_read.members();
    let keep = |kind: MemberKind, member: &mut dyn Read| -> Result<File, BuildError> {
        let path = work.join(kind.as_str());
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let mut out = HashingWriter::new(file.map_err(BuildError::io("make", &path))?);
        if let Err(error) = io::copy(&mut member.take(manifest.member(kind).size.bytes() + 1), &mut out) {
            return Err(match error.downcast() {
                Ok(error) => sound(error),
                Err(error) => BuildError::io("unpack", &path)(error),
            });
        }
        let (file, sha256, len) = out.finish();
        let wanted = manifest.member(kind);
        match (sha256, len) == (wanted.sha256, wanted.size.bytes()) {
            true => Ok(file),
            false => Err(sound(siris_ibu::bundle::BundleError::Member(kind))),
        }
    };
    keep(MemberKind::Tree, &mut tree)?;
    let (boot, root) = (keep(MemberKind::Boot, &mut boot)?, keep(MemberKind::Root, &mut root)?);
    let image = Joined { boot, root, shape: Shape::of(&manifest) };
    Ok((manifest, image))
}
