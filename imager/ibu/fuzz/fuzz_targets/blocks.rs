//! Any bytes as a blocks file: an error, or the image that its ids name.
#![no_main]

use std::io::Read;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use siris_ibu::delta::blocks::Index;
use siris_ibu::delta::{Assembly, Known};
use siris_ibu_fuzz::{Served, System};

static SYSTEMS: LazyLock<(System, System)> = LazyLock::new(|| (System::new(1), System::new(2)));

fuzz_target!(|bytes: &[u8]| {
    let (old, new) = &*SYSTEMS;
    let (file, verity, shape) = (Served(bytes), &new.manifest.verity, new.shape());
    let Ok(index) = Index::read(&file, shape, &verity.root_hash) else { return };
    let Ok(known) = Known::look(&mut &old.image[..], old.shape(), verity.salt, None) else { return };
    let Ok(plan) = index.plan(&known, &mut &new.image[..], verity.salt) else { return };
    let _ = plan.fetch_len();
    let (mut running, mut there) = (&old.image[..], &old.image[..]);
    let Ok(mut assembly) = Assembly::of_blocks(&file, &plan, shape, verity, &mut running, &mut there) else { return };
    let mut image = Vec::new();
    if assembly.read_to_end(&mut image).is_ok() {
        assert_eq!(image.len(), new.image.len());
    }
});
