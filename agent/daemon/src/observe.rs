//! Cheap looks at the machine: the state partition, the booted slot, the uptime. No process is started here.

use std::path::Path;

use crate::health::StateFact;
use crate::root::Root;

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
        Ok(fs) => StateFact::Writable { size: fs.f_blocks * fs.f_frsize, free: fs.f_bfree * fs.f_frsize },
    }
}

/// What the kernel command line and the disk say about the booted slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootedSlot {
    /// `a` or `b`; `None` when not booted from a slot.
    pub name: Option<&'static str>,
    /// Why it is not to be believed.
    pub mismatch: Option<String>,
}

/// Reads `siris.slot` and checks it against the number of the partition that `siris.root` names.
pub fn booted_slot(root: &Root) -> BootedSlot {
    let line = root.read("/proc/cmdline").ok().flatten().unwrap_or_default();
    let value = |key: &str| line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let (name, number) = match value("siris.slot") {
        None => return BootedSlot::default(),
        Some("a") => ("a", "5"),
        Some("b") => ("b", "6"),
        Some(other) => return BootedSlot { name: None, mismatch: Some(format!("siris.slot={other} is no slot")) },
    };
    let mismatch = match value("siris.root") {
        None => Some("the kernel command line has siris.slot and no siris.root".to_owned()),
        Some(partuuid) => partition_number(root, partuuid)
            .filter(|found| found != number)
            .map(|found| format!("siris.slot={name} is partition {number}, but siris.root is partition {found}")),
    };
    BootedSlot { name: Some(name), mismatch }
}

/// The partition's number on its disk; `None` when the device is not to be seen, which is not the slot's fault.
fn partition_number(root: &Root, partuuid: &str) -> Option<String> {
    let link = std::fs::read_link(root.path(format!("/dev/disk/by-partuuid/{}", partuuid.to_ascii_lowercase()))).ok()?;
    let device = Path::new(&link).file_name()?.to_str()?;
    Some(root.read(&format!("/sys/class/block/{device}/partition")).ok()??.trim().to_owned())
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
        assert_eq!(booted("ro siris.slot=a siris.root=AA-BB\n", "5\n"), BootedSlot { name: Some("a"), mismatch: None });
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
        root.write("/proc/self/mountinfo", b"30 1 254:7 / /state rw,relatime shared:1 - ext4 /dev/vda7 rw\n", 0o644).unwrap();
        assert!(matches!(state_partition(&root), StateFact::Writable { size, free } if size >= free && free > 0));
    }
}
