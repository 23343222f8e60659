//! Writes the files that the targets start from into `corpus/`.

use std::{fs, io, path::Path};

use siris_ibu_fuzz::System;

fn main() -> io::Result<()> {
    let (old, new) = (System::new(1), System::new(2));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, seeds) in [
        ("bundle", vec![old.bundle(), new.bundle()]),
        ("blocks", vec![old.blocks(), new.blocks()]),
        ("patch", vec![new.patch_from(&old), old.patch_from(&new)]),
    ] {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir)?;
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{n}")), seed)?;
        }
    }
    Ok(())
}
