//! Any bytes as a patch: an error, or an image of the right length, for the slot writer to judge.
#![no_main]

use std::io::{Cursor, Read};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use siris_ibu::delta::Assembly;
use siris_ibu::delta::patch::Patch;
use siris_ibu_fuzz::System;

static SYSTEMS: LazyLock<(System, System)> = LazyLock::new(|| (System::new(1), System::new(2)));

fuzz_target!(|bytes: &[u8]| {
    let (old, new) = &*SYSTEMS;
    let mut body: Box<dyn Read> = Box::new(Cursor::new(bytes.to_vec()));
    let hash = |system: &System| system.manifest.verity.root_hash;
    let Ok(patch) = Patch::read(&mut body, (old.shape(), &hash(old)), (new.shape(), &hash(new))) else { return };
    let (mut running, mut nothing) = (&old.image[..], &[][..]);
    let mut assembly = Assembly::of_patch(body, &patch, &new.manifest.verity, &mut running, &mut nothing);
    let mut image = Vec::new();
    if assembly.read_to_end(&mut image).is_ok() {
        assert_eq!(image.len(), new.image.len());
    }
});
