use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::symlink;

use super::*;
use crate::facts::{FileSystem, Md};
use crate::report;
use crate::testbox::{self, TestBox};

fn head(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_tools_leave_is_recognised() {
    let facts = observe(&TestBox::new().host).unwrap();
    let index = include_str!("../../fixtures/INDEX");
    for line in index.lines().filter(|line| !line.starts_with('#')) {
        let (name, wanted) = line.split_once(' ').unwrap();
        let bytes = head(name);
        let found = magic::recognise(&mut Cursor::new(&bytes), 320 << 20).unwrap();
        let words: Vec<String> = found.iter().map(|content| report::content(content, &facts)).collect();
        assert_eq!(words, [wanted.trim().replace(" labelled", "")], "{name}");
        // Cut anywhere, it is another thing or nothing, and no reason to panic.
        for len in [0, 1, 511, 512, 1100, 4096, 65536] {
            magic::recognise(&mut Cursor::new(&bytes[..len.min(bytes.len())]), len as u64).unwrap();
        }
    }
}

/// A superblock of version 1 as md(4) and the kernel's `md_p.h` describe it.
fn md1(place: u64) -> Vec<u8> {
    let mut sb = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| sb[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &0xa92b_4efcu32.to_le_bytes());
    put(4, &1u32.to_le_bytes());
    put(16, &[0xab; 16]);
    put(72, &1u32.to_le_bytes());
    put(92, &2u32.to_le_bytes());
    put(128, &2048u64.to_le_bytes());
    put(144, &(place / 512).to_le_bytes());
    sb
}

#[test]
fn md_is_found_at_each_of_its_places() {
    let size = 8u64 << 20;
    let md = |at: u64, bytes: &[u8]| {
        let mut disk = vec![0; size as usize];
        disk[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        match &magic::recognise(&mut Cursor::new(disk), size).unwrap()[..] {
            [Content::Md(Md { metadata, level: 1, devices: 2, data_start, .. })] => {
                Some((metadata.clone(), *data_start))
            }
            _ => None,
        }
    };
    for (metadata, place) in [("1.1", 0), ("1.2", 4096), ("1.0", size - 8192)] {
        assert_eq!(md(place, &md1(place)), Some((metadata.into(), 1 << 20)));
    }
    // A copy that lies elsewhere than it says (an image of the device inside a file) is none.
    assert_eq!(md(4096, &md1(8192)), None);
    let mut old = vec![0; 4096];
    for (at, word) in [(0, 0xa92b_4efcu32), (8, 90), (28, 1), (40, 2)] {
        old[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    assert_eq!(md(size - 65536, &old), Some(("0.90".into(), 0)));
}

#[test]
fn an_old_system_is_named_without_a_write() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    machine.old_system("sda", 1024);
    let before = machine.digest("sda");
    let facts = observe(&machine.host).unwrap();
    let disk = &facts.disks[0];
    assert_eq!((disk.table, disk.partitions[0].number), (TableKind::Gpt, 8));
    let [Content::FileSystem(FileSystem { kind, label, dirty: true }), Content::Os(os)] =
        &disk.partitions[0].content[..]
    else {
        panic!("{:?}", disk.partitions[0].content)
    };
    assert_eq!((kind.as_str(), label.as_deref()), ("ext4", Some("oldroot")));
    assert_eq!((os.name.as_str(), os.hostname.as_deref()), ("Old GNU/Linux 9 [31m(red)", Some("node7")));
    assert_eq!(machine.digest("sda"), before);
    assert!(report::table(&facts).contains("Old GNU/Linux 9"));
}

#[test]
fn sysfs_and_udev_say_who_a_disk_is() {
    let machine = TestBox::new();
    machine.disk("sda", 64);
    machine.disk("nvme0n1", 64);
    for name in ["loop0", "sr0", "dm-0", "md0", "zram0"] {
        machine.disk(name, 64);
    }
    machine.put("/sys/block/nvme0c0n1/size", b"100\n");
    machine.put("/sys/block/nvme0c0n1/hidden", b"1\n");
    machine.put("/sys/block/sdb/size", b"0\n");
    let dev = fs::read_to_string(machine.path("/sys/block/sda/dev")).unwrap();
    let udev = b"S:disk/by-id/x\nE:ID_BUS=ata\nE:ID_SERIAL_SHORT=WD-7\nE:ID_WWN=0x5000C500A1B2C3D4\n";
    machine.put(&format!("/run/udev/data/b{}", dev.trim()), udev);
    machine.put("/sys/block/sda/sda2/partition", b"2\n");
    machine.put("/sys/block/sda/sda2/dev", b"8:2\n");
    machine.put("/sys/block/sda/sda2/holders/md127", b"");
    machine
        .put("/proc/self/mountinfo", b"30 1 8:2 / /mnt/old rw - ext4 /dev/sda2 rw\n31 1 0:5 / /proc rw - proc x rw\n");
    machine.put("/proc/swaps", b"Filename\tType\n/dev/sda2 partition 1 0 -2\n");
    machine.stat("sda", 7, 9);
    fs::create_dir_all(machine.path("/dev/disk/by-id")).unwrap();
    symlink("../../sda", machine.path("/dev/disk/by-id/ata-WD-7")).unwrap();
    let facts = observe(&machine.host).unwrap();
    let names: Vec<&str> = facts.disks.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["nvme0n1", "sda"]);
    let sda = &facts.disks[1];
    assert_eq!((sda.serial.as_deref(), sda.wwn.as_deref()), (Some("WD-7"), Some("5000c500a1b2c3d4")));
    assert_eq!((sda.transport.as_deref(), sda.by_id.as_slice()), (Some("ata"), &["ata-WD-7".to_owned()][..]));
    assert_eq!(
        (sda.holders.as_slice(), sda.used_as.as_slice()),
        (&["md127".into()][..], &["/mnt/old".into(), "swap".into()][..])
    );
    assert_eq!((sda.written, sda.discarded, sda.read_only), (7, 9, true));
    assert_eq!(facts.disks[0].transport.as_deref(), Some("nvme"));
}

#[test]
fn a_disk_that_cannot_be_read_is_a_fact() {
    let machine = TestBox::new();
    fs::remove_file(machine.disk("sda", 64)).unwrap();
    let facts = observe(&machine.host).unwrap();
    assert!(facts.disks[0].unreadable.is_some());
    assert!(report::table(&facts).contains("unreadable"));
}
