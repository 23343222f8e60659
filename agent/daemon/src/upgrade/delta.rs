//! What an upgrade over the network need not fetch: which delta there is, whether it pays, and writing the slot by it.
//!
//! A patch from the running version first, then blocks by ranges; each lies beside the bundle. Whatever is wrong with one,
//! but for the box's own disk, is said in the journal and leads to the next, at last to the whole bundle.

use std::fs::File;
use std::io::{self, BufReader, Read};

use siris_ibu::MemberKind;
use siris_ibu::delta::blocks::Index;
use siris_ibu::delta::patch::Patch;
use siris_ibu::delta::{Assembly, BLOCK_LEN, Counts, DeltaError, Known, Placed, Remote, Shape};
use siris_ibu::verity;
use siris_slots::Slot;
use siris_slots::device::Window;
use siris_slots::layout::Part;
use siris_slots::writer::WriteError;

use super::http::{self, Client};
use super::{Fetched, Target, Told, UpgradeError, Way};

/// A delta that has more than so many percent of the whole bundle is not worth its work.
const PAYS_BELOW: u64 = 90;

/// Why a slot was not written by a delta.
enum Fault {
    /// The delta: there are other ways.
    Delta(DeltaError),
    /// It would cost more than it saves.
    DoesNotPay(u64),
    /// The box.
    Box(UpgradeError),
}

impl From<DeltaError> for Fault {
    fn from(error: DeltaError) -> Self {
        Fault::Delta(error)
    }
}

/// Writes the slot by a delta. `None` when there is none that can be used: the slot has nothing to be booted then.
///
/// # Errors
/// When the slot cannot be written by any.
pub(super) fn write(
    target: &mut Target<'_>,
    client: &Client,
    url: &str,
    whole: u64,
    told: &mut dyn FnMut(Told),
) -> Result<Option<Fetched>, UpgradeError> {
    for way in [Way::Patch, Way::Blocks] {
        let ending = match way {
            Way::Patch => format!("from-{}.patch", target.running.manifest.version),
            _ => "blocks".to_owned(),
        };
        let Some(beside) = http::beside(url, &ending) else { return Ok(None) };
        let done = match way {
            Way::Patch => by_patch(target, client, &beside, whole, told),
            _ => by_blocks(target, &http::unopened(client, beside.clone()), whole, told),
        };
        let shown = http::shown(&beside);
        match done {
            Ok(counts) => {
                let reused = counts.copied + counts.kept;
                return Ok(Some(Fetched { way, received: client.received(), reused }));
            }
            Err(Fault::Box(error)) => return Err(error),
            Err(Fault::DoesNotPay(bytes)) => eprintln!("{shown} would cost {bytes} bytes, the bundle has {whole}"),
            Err(Fault::Delta(error)) => eprintln!("{shown} is not used: {}", crate::chain(&error)),
        }
    }
    Ok(None)
}

/// The image in a slot, read through a file of its own: the writer has the other one.
fn image(target: &Target<'_>, slot: Slot, shape: Shape) -> Result<Placed<File>, Fault> {
    let (device, layout) = target.disk.open().map_err(|error| Fault::Box(error.into()))?;
    let (boot, root) = (layout.start(Part::Boot(slot)), layout.start(Part::Root(slot)));
    Ok(Placed { device, boot, root, shape })
}

fn pays(delta: u64, whole: u64) -> Result<(), Fault> {
    if delta > whole / 100 * PAYS_BELOW { Err(Fault::DoesNotPay(delta)) } else { Ok(()) }
}

fn by_patch(
    target: &mut Target<'_>,
    client: &Client,
    url: &str,
    whole: u64,
    told: &mut dyn FnMut(Told),
) -> Result<Counts, Fault> {
    let (new, old) = (target.signed.manifest().clone(), &target.running.manifest);
    let (old_shape, shape) = (Shape::of(old), Shape::of(&new));
    let opened = http::open(client, url).map_err(|error| DeltaError::Fetch(io::Error::other(error)))?;
    let mut body = opened.into_reader();
    let patch = Patch::read(&mut body, (old_shape, &old.verity.root_hash), (shape, &new.verity.root_hash))?;
    pays(patch.groups_len(), whole)?;
    let mut running = image(target, target.running.slot, old_shape)?;
    let mut there = image(target, target.slot, shape)?;
    let mut assembly = Assembly::of_patch(body, &patch, &new.verity, &mut running, &mut there);
    fill(target, &mut assembly, told)
}

fn by_blocks(
    target: &mut Target<'_>,
    file: &dyn Remote,
    whole: u64,
    told: &mut dyn FnMut(Told),
) -> Result<Counts, Fault> {
    let (new, old) = (target.signed.manifest().clone(), &target.running.manifest);
    let (old_shape, shape) = (Shape::of(old), Shape::of(&new));
    let index = Index::read(file, shape, &new.verity.root_hash)?;
    let mut running = image(target, target.running.slot, old_shape)?;
    let mut there = image(target, target.slot, shape)?;
    let leaves = leaves(target, &mut running)?;
    let known = Known::look(&mut running, old_shape, new.verity.salt, leaves.as_deref()).map_err(DeltaError::Old)?;
    let index_len = index.len();
    let plan = index.plan(&known, &mut there, new.verity.salt).map_err(DeltaError::Old)?;
    drop((known, leaves));
    pays(index_len + plan.fetch_len(), whole)?;
    let mut assembly = Assembly::of_blocks(file, &plan, shape, &new.verity, &mut running, &mut there)?;
    fill(target, &mut assembly, told)
}

/// The leaves of the running slot's tree, verified, where the new image is hashed with the same salt.
fn leaves(target: &Target<'_>, running: &mut Placed<File>) -> Result<Option<Vec<u8>>, Fault> {
    let (new, old) = (target.signed.manifest(), &target.running.manifest);
    if old.verity.salt != new.verity.salt {
        return Ok(None);
    }
    let tree = Window::new(&mut running.device, running.root + old.root.size.bytes(), old.tree.size.bytes());
    let checked = verity::check_tree(&old.verity, BufReader::new(tree));
    // A damaged tree is no reason to fail: blocks are hashed instead.
    Ok(checked.ok())
}

fn fill(target: &mut Target<'_>, assembly: &mut Assembly<'_>, told: &mut dyn FnMut(Told)) -> Result<Counts, Fault> {
    target.empty().map_err(Fault::Box)?;
    let boot = Shape::of(target.signed.manifest()).boot * BLOCK_LEN as u64;
    let written = target.fill(told, |writer| {
        writer.member(MemberKind::Boot, &mut assembly.by_ref().take(boot))?;
        writer.member(MemberKind::Root, assembly)?;
        let tree =
            assembly.tree().map_err(|error| WriteError::ReadMember(MemberKind::Tree, io::Error::other(error)))?;
        writer.member(MemberKind::Tree, &mut &tree[..])
    });
    match written {
        Ok(()) => Ok(assembly.counts()),
        Err(WriteError::ReadMember(kind, source)) => Err(match source.downcast::<DeltaError>() {
            Ok(error) => Fault::Delta(error),
            Err(source) => Fault::Box(UpgradeError::Write(WriteError::ReadMember(kind, source))),
        }),
        Err(WriteError::MemberDigest { .. } | WriteError::MemberSize { .. }) => {
            Err(Fault::Delta(DeltaError::Malformed("it does not make what was signed")))
        }
        Err(error) => Err(Fault::Box(UpgradeError::Write(error))),
    }
}
