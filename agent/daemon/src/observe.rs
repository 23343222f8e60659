//! Cheap looks at the machine: the state partition, the booted slot, the uptime. No process is started here.

use std::path::Path;

use siris_slots::Slot;
use siris_slots::layout::Part;

use crate::health::StateFact;
use crate::root::Root;
use crate::slots::boot_word;

/// What lies on the state partition and what the agent may write: its own directory there.
const STATE_PROBE: &str = "/var/lib/siris";

/// Looks at the state partition.
pub fn state_partition(root: &Root) -> StateFact {
    let mounts = root.read("/proc/self/mountinfo").ok().flatten().unwrap_or_default();
    // Fields of a line: id, parent, device, root, mount point, ... (proc_pid_mountinfo(5)).
    if !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/state")) {
        return StateFact::NotMounted;
    }
    match rustix::fs::statvfs(root.path(STATE_PROBE)) {
        Err(_) => StateFact::NotMounted,
        Ok(fs) if fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => StateFact::ReadOnly,
        Ok(fs) => StateFact::Writable { size: fs.f_blocks * fs.f_frsize, free: fs.f_bavail * fs.f_frsize },
    }
}

/// Bytes of the state partition, and how many of them are free, whether or not who asks may write there; `None` where it is
/// not mounted.
pub fn state_space(root: &Root) -> Option<(u64, u64)> {
    if state_partition(root) == StateFact::NotMounted {
        return None;
    }
    let fs = rustix::fs::statvfs(root.path(STATE_PROBE)).ok()?;
    Some((fs.f_blocks * fs.f_frsize, fs.f_bavail * fs.f_frsize))
}

/// What the kernel command line and the disk say about the booted slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootedSlot {
    /// The slot; `None` when not booted from one.
    pub slot: Option<Slot>,
    /// Why it is not to be believed.
    pub mismatch: Option<String>,
}

impl BootedSlot {
    /// `a`, `b` or nothing.
    pub fn word(&self) -> &'static str {
        self.slot.map_or("", Slot::as_str)
    }
}

/// Reads `siris.slot` and checks it against the number of the partition that `siris.root` names.
pub fn booted_slot(root: &Root) -> BootedSlot {
    let Some(word) = boot_word(root, "siris.slot") else { return BootedSlot::default() };
    let Ok(slot) = word.parse::<Slot>() else {
        return BootedSlot { slot: None, mismatch: Some(format!("siris.slot={word} is no slot")) };
    };
    let number = Part::Root(slot).number();
    let mismatch = match boot_word(root, "siris.root") {
        None => Some("the kernel command line has siris.slot and no siris.root".to_owned()),
        Some(partuuid) => partition_number(root, &partuuid)
            .filter(|found| *found != number)
            .map(|found| format!("siris.slot={slot} is partition {number}, but siris.root is partition {found}")),
    };
    BootedSlot { slot: Some(slot), mismatch }
}

/// The partition's number on its disk; `None` when the device is not to be seen, which is not the slot's fault.
fn partition_number(root: &Root, partuuid: &str) -> Option<u32> {
    let link =
        std::fs::read_link(root.path(format!("/dev/disk/by-partuuid/{}", partuuid.to_ascii_lowercase()))).ok()?;
    let device = Path::new(&link).file_name()?.to_str()?;
    root.read(&format!("/sys/class/block/{device}/partition")).ok()??.trim().parse().ok()
}

/// Seconds since the kernel started.
pub fn uptime(root: &Root) -> u64 {
    let text = root.read("/proc/uptime").ok().flatten().unwrap_or_default();
    text.split('.').next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// The host name, as the kernel has it.
pub fn hostname(root: &Root) -> String {
    root.read("/proc/sys/kernel/hostname").ok().flatten().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booted(cmdline: &str, partition: &str) -> BootedSlot {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root.write("/proc/cmdline", cmdline.as_bytes(), 0o644).unwrap();
        root.write("/sys/class/block/vda5/partition", partition.as_bytes(), 0o644).unwrap();
        std::fs::create_dir_all(root.path("/dev/disk/by-partuuid")).unwrap();
        std::os::unix::fs::symlink("../../vda5", root.path("/dev/disk/by-partuuid/aa-bb")).unwrap();
        booted_slot(&root)
    }

    #[test]
    fn a_slot_is_believed_when_the_partition_is_its_own() {
        assert_eq!(
            booted("ro siris.slot=a siris.root=AA-BB\n", "5\n"),
            BootedSlot { slot: Some(Slot::A), mismatch: None }
        );
        assert!(booted("siris.slot=b siris.root=aa-bb", "5\n").mismatch.is_some());
        assert!(booted("siris.slot=c siris.root=aa-bb", "5\n").mismatch.is_some());
        assert!(booted("siris.slot=a", "5\n").mismatch.is_some());
        assert_eq!(booted("quiet", "5\n"), BootedSlot::default());
    }

    #[test]
    fn state_is_not_mounted_unless_the_kernel_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(root.path(STATE_PROBE)).unwrap();
        assert_eq!(state_partition(&root), StateFact::NotMounted);
        root.write("/proc/self/mountinfo", b"30 1 254:7 / /state rw,relatime shared:1 - ext4 /dev/vda7 rw\n", 0o644)
            .unwrap();
        assert!(matches!(state_partition(&root), StateFact::Writable { size, free } if size >= free && free > 0));
    }
}
