use std::fs;
use std::os::unix::fs::symlink;

use siris_slots::fat::{FatFile, FatSpec};
use siris_slots::{Tries, device::Zeros};

use super::*;

/// A box booted from slot a, with an EFI system partition in a file.
fn machine(env: &BootEnv) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    root.write("/proc/cmdline", b"siris.slot=a siris.root=AA\n", 0o644).unwrap();
    for (name, number) in [("vda2", "2\n"), ("vda5", "5\n")] {
        root.write(&format!("/sys/devices/vda/{name}/partition"), number.as_bytes(), 0o644).unwrap();
    }
    root.write("/sys/devices/vda/queue/logical_block_size", b"512\n", 0o644).unwrap();
    fs::create_dir_all(root.path("/sys/class/block")).unwrap();
    symlink("../../devices/vda/vda5", root.path("/sys/class/block/vda5")).unwrap();
    fs::create_dir_all(root.path("/dev/disk/by-partuuid")).unwrap();
    symlink("../../vda5", root.path("/dev/disk/by-partuuid/aa")).unwrap();
    let block = env.to_block().unwrap();
    let mut esp =
        File::options().create(true).truncate(true).read(true).write(true).open(root.path("/dev/vda2")).unwrap();
    make_esp(&mut esp, &block);
    (dir, root)
}

fn trial() -> BootEnv {
    let mut env = BootEnv::first(Slot::B);
    env.arm(Slot::A).unwrap();
    env
}

#[test]
fn the_booted_slot_is_kept_where_its_environment_lies() {
    let (_dir, root) = machine(&trial());
    assert!(on_trial(&root, Slot::A));
    assert!(bless(&root, Slot::A).unwrap());
    assert!(!on_trial(&root, Slot::A));
    assert!(!bless(&root, Slot::A).unwrap(), "a second time there is nothing to change");
    let env = OsDisk::find(&root).unwrap().environment().unwrap();
    assert_eq!((env.record(Slot::A).state, env.record(Slot::A).tries), (SlotState::Good, Tries::FULL));
    assert_eq!(primary(&root).unwrap(), Some(Slot::A));
}

#[test]
fn what_cannot_be_read_of_a_slot_is_said_beside_what_can() {
    let (_dir, root) = machine(&trial());
    fs::write(root.path("/dev/vda"), [0; 1 << 20]).unwrap();
    let slots = status(&root, Some(Slot::A)).unwrap();
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().all(|s| s.details.contains_key("state") && s.details.contains_key("error")));
    assert!(describe(&root, Some(Slot::A)).contains("slot a:"));
}

#[test]
fn a_box_without_slots_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::new(dir.path());
    assert_eq!(status(&root, None).unwrap_err().code(), "no-slot");
    let (_dir, root) = machine(&trial());
    fs::remove_file(root.path("/sys/devices/vda/vda2/partition")).unwrap();
    assert_eq!(bless(&root, Slot::A).unwrap_err().code(), "no-such-partition");
}

fn make_esp(esp: &mut File, block: &[u8]) {
    let mut content = block;
    let mut files = [FatFile { path: bootenv::PATH, content: &mut content }];
    let spec = FatSpec {
        size: siris_ibu::ByteSize::from_bytes(8 << 20),
        sector: SectorSize::S512,
        label: "ESP",
        volume_id: 1,
    };
    fat::build(esp, &spec, &mut files, Zeros::Skip).unwrap();
}
