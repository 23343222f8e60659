use std::io::{Cursor, Write};

use proptest::test_runner::Config;
use proptest::{collection, proptest};

use super::*;
use crate::device::Zeros;

fn spec(mib: u64, sector: SectorSize) -> FatSpec {
    FatSpec { size: ByteSize::mib(mib), sector, label: "SIRIS_ESP", volume_id: 0x1234_5678 }
}

fn built(spec: &FatSpec, files: &[(&str, &[u8])]) -> Result<Vec<u8>, FatError> {
    let mut contents: Vec<_> = files.iter().map(|(_, content)| *content).collect();
    let mut files: Vec<_> = files
        .iter()
        .zip(&mut contents)
        .map(|((path, _), content)| FatFile { path, content: content as &mut dyn Read })
        .collect();
    let mut image = Cursor::new(vec![0; spec.size.bytes() as usize]);
    let used = build(&mut image, spec, &mut files, Zeros::Skip)? as usize;
    let image = image.into_inner();
    assert!(image[used..].iter().all(|byte| *byte == 0), "something behind what is in use");
    Ok(image)
}

const SECTORS: [SectorSize; 2] = [SectorSize::S512, SectorSize::S4096];

#[test]
fn files_are_found_where_they_were_put() {
    let big: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let files: [(&str, &[u8]); 5] = [
        ("EFI/BOOT/BOOTX64.EFI", &big),
        ("siris/grubenv", &[b'#'; 1024]),
        ("siris/A rather long name.config", b"content"),
        ("EFI/BOOT/grub.cfg", b""),
        ("vmlinuz", &big[5..70_000]),
    ];
    for (mib, sector) in [(2, SECTORS[0]), (8, SECTORS[0]), (8, SECTORS[1]), (128, SECTORS[0]), (40, SECTORS[1])] {
        let spec = spec(mib, sector);
        let image = built(&spec, &files).unwrap();
        assert_eq!(image, built(&spec, &files).unwrap(), "same files, same bytes");
        let mut dev = Cursor::new(image);
        for (path, content) in &files {
            assert_eq!(read(&mut dev, path).unwrap(), *content, "{path} in {spec:?}");
            assert_eq!(read(&mut dev, &path.to_uppercase()).unwrap(), *content);
        }
        for missing in ["EFI/BOOT/none", "siris/grubenv/x", "none/grubenv", "", "SIRIS_ESP"] {
            assert_eq!(locate(&mut dev, missing).unwrap_err().code(), "fat-not-found", "{missing}");
        }
        assert!(matches!(locate(&mut dev, "EFI/BOOT"), Err(FatError::NotAFile(_))));
        assert_eq!(locate(&mut dev, "siris/grubenv").unwrap().len(), 1, "one piece, or a write could be torn");
    }
}

/// Another implementation reads what is made here, and is read.
#[test]
fn fatfs_agrees() {
    let big: Vec<u8> = (0..1_000_000u32).map(|n| (n % 241) as u8).collect();
    for (mib, sector) in [(2, SECTORS[0]), (8, SECTORS[1]), (30, SECTORS[0]), (128, SECTORS[0]), (300, SECTORS[1])] {
        let spec = spec(mib, sector);
        let files: [(&str, &[u8]); 4] =
            [("EFI/BOOT/BOOTX64.EFI", &big), ("EFI/Longer name than 8.3", b"x"), ("empty", b""), ("EFI/a+b", b"y")];
        let fs = fatfs::FileSystem::new(Cursor::new(built(&spec, &files).unwrap()), fatfs::FsOptions::new()).unwrap();
        assert_eq!((fs.volume_label().as_str(), fs.volume_id()), ("SIRIS_ESP", 0x1234_5678));
        assert_eq!(fs.read_volume_label_from_root_dir().unwrap().as_deref(), Some("SIRIS_ESP"));
        for (path, content) in files {
            let mut found = Vec::new();
            fs.root_dir().open_file(path).unwrap().read_to_end(&mut found).unwrap();
            assert_eq!(found, content, "{path}");
        }
        let names: Vec<_> = fs.root_dir().open_dir("EFI").unwrap().iter().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [".", "..", "BOOT", "Longer name than 8.3", "a+b"]);

        let mut theirs = Cursor::new(vec![0; (mib << 20) as usize]);
        let format = fatfs::FormatVolumeOptions::new().bytes_per_sector(sector.bytes() as u16);
        fatfs::format_volume(&mut theirs, format).unwrap();
        let fs = fatfs::FileSystem::new(&mut theirs, fatfs::FsOptions::new()).unwrap();
        fs.root_dir().create_dir("a dir").unwrap().create_file("f").unwrap().write_all(&big).unwrap();
        fs.unmount().unwrap();
        assert_eq!(read(&mut theirs, "A dir/F").unwrap(), big);
    }
}

#[test]
fn a_system_partition_is_fat32_where_it_can_be() {
    for (mib, sector, kind) in [(128, 512, "FAT32   "), (256, 512, "FAT32   ")] {
        let image = built(&spec(mib, SectorSize::from_bytes(sector).unwrap()), &[]).unwrap();
        assert_eq!(&image[82..90], kind.as_bytes());
    }
    for mib in [128, 256] {
        let image = built(&spec(mib, SectorSize::S4096), &[]).unwrap();
        assert_eq!(&image[54..62], b"FAT16   ");
    }
}

#[test]
fn overwriting_changes_the_content_and_nothing_else() {
    let before = built(&spec(8, SectorSize::S512), &[("a/b", b"old content"), ("c", b"other")]).unwrap();
    let mut dev = Cursor::new(before.clone());
    overwrite(&mut dev, "a/b", b"NEW CONTENT").unwrap();
    assert_eq!(overwrite(&mut dev, "a/b", b"short").unwrap_err().code(), "fat-length");
    let after = dev.into_inner();
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed.len(), 10);
    assert!(changed[9] - changed[0] < 11);
}

#[test]
fn too_much_and_odd_names_are_refused() {
    let spec = spec(1, SectorSize::S512);
    assert_eq!(built(&spec, &[("big", &vec![1; 2 << 20])]).unwrap_err().code(), "fat-store");
    for path in ["a?b", "", "a//b", "é", "dot.", "dir/"] {
        assert_eq!(built(&spec, &[(path, b"")]).unwrap_err().code(), "fat-name", "{path}");
    }
    for twice in ["twice", "TWICE", "twice/below"] {
        assert_eq!(built(&spec, &[("twice", b"1"), (twice, b"2")]).unwrap_err().code(), "fat-name");
    }
    let zero = FatSpec { size: ByteSize::from_bytes(8192), ..spec };
    assert_eq!(built(&zero, &[]).unwrap_err().code(), "fat-size");
    assert_eq!(built(&FatSpec { label: "lower", ..spec }, &[]).unwrap_err().code(), "fat-label");
}

proptest! {
    #![proptest_config(Config::with_cases(200))]

    #[test]
    fn damage_is_an_error_and_never_a_loop(flips in collection::vec((0usize..48 * 1024, 0u8..=255), 1..60)) {
        let image = built(&spec(1, SectorSize::S512), &[("dir/file", &[7; 5000]), ("dir/other", &[8; 3000])]).unwrap();
        let mut dev = Cursor::new(image);
        for (at, byte) in flips {
            // Boot sector, tables and directories are within the first 48 KiB.
            dev.get_mut()[at % if at % 3 == 0 { 512 } else { 48 * 1024 }] = byte;
        }
        let _ = read(&mut dev, "dir/other");
    }
}
