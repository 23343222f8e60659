//! Makes the pool of a full install: by `zpool create`, on disks whose fences are opened for no longer than that.

use siris_host::cmd::{Cmd, CmdError, Tool};
use siris_zfs_label::PoolGuid;

use super::open::Open;
use super::{ApplyError, wipe};
use crate::answers::PoolLayout;
use crate::host::Host;
use crate::observe::observe;
use crate::plan::{DataDisk, NewPoolPlan};

/// Where it is mounted while it is made: in memory.
const ALTROOT: &str = "/run/siris/newpool";

/// How often it is tried to be made where udev comes in between.
const ATTEMPTS: usize = 8;

/// Makes the pool and exports it; returns the guid that its labels say.
///
/// # Errors
/// When a disk fails, or ZFS refuses.
pub fn create(host: &Host, plan: &NewPoolPlan) -> Result<PoolGuid, ApplyError> {
    for disk in plan.all() {
        let mut open = Open::new(host, &disk.disk, disk.diskseq, Vec::new())?;
        let cleared = wipe(open.dev(), &disk.wipes, disk.size.bytes());
        cleared.map_err(|error| ApplyError::Wipe(disk.disk.to_string(), error))?;
        open.close()?;
    }
    let fences = Fences { host, disks: plan.all().collect() };
    fences.set(true)?;
    // Links of partitions that were just cleared go away first. That they never do is no reason not to go on.
    let _ = Cmd::new(Tool::Udevadm).args(["settle", "--timeout=30"]).run();
    made(plan).map_err(ApplyError::Pool)?;
    Cmd::new(Tool::Zpool).args(["export", &plan.name]).run().map_err(ApplyError::Pool)?;
    fences.set(false)?;
    let facts = observe(host)?;
    let made = facts.pools.iter().find(|pool| pool.name == plan.name && pool.comment.as_ref() == Some(&plan.comment));
    made.map(|pool| pool.guid).ok_or_else(|| ApplyError::NoPool(plan.name.clone()))
}

/// What `zpool create` says where the link of a partition is gone when it looks for it, or when it opens it.
const PASSING: [&str; 2] = ["no such pool or dataset", "one or more devices is currently unavailable"];

/// `zpool create`, which partitions each disk and then opens the partition by its link. Udev reads the new table at the
/// same time and takes that link away for a moment; ZFS then says one of [`PASSING`], and has made nothing.
fn made(plan: &NewPoolPlan) -> Result<(), CmdError> {
    let create = || Cmd::new(Tool::Zpool).args(arguments(plan)).run();
    for _ in 1..ATTEMPTS {
        match create() {
            Err(CmdError::Failed { tail, .. }) if PASSING.iter().any(|said| tail.contains(said)) => {
                let _ = Cmd::new(Tool::Udevadm).args(["settle", "--timeout=30"]).run();
            }
            ended => return ended,
        }
    }
    create()
}

fn arguments(plan: &NewPoolPlan) -> Vec<String> {
    let comment = format!("comment={}", plan.comment);
    let options = ["create", "-o", "ashift=12", "-o", "cachefile=none", "-o", &comment, "-O", "atime=off", "-O"];
    let more = ["compression=lz4", "-O", "xattr=sa", "-O", "acltype=posix", "-R", ALTROOT, &plan.name];
    let mut arguments: Vec<String> = options.into_iter().chain(more).map(str::to_owned).collect();
    let mut group = |words: &[&str], disks: &[DataDisk]| {
        if !disks.is_empty() {
            arguments.extend(words.iter().filter(|word| !word.is_empty()).map(|word| (*word).to_owned()));
            arguments.extend(disks.iter().map(|disk| disk.device.clone()));
        }
    };
    group(&[PoolLayout::vdev(plan.layout).0], &plan.disks);
    group(if plan.log.len() > 1 { &["log", "mirror"] } else { &["log"] }, &plan.log);
    group(&["spare"], &plan.spares);
    arguments
}

/// The fences of its disks; closed when dropped.
struct Fences<'a> {
    host: &'a Host,
    disks: Vec<&'a DataDisk>,
}

impl Fences<'_> {
    fn set(&self, open: bool) -> Result<(), ApplyError> {
        self.disks.iter().try_for_each(|disk| Ok(self.host.set_writable(&disk.disk, open)?))
    }
}

impl Drop for Fences<'_> {
    fn drop(&mut self) {
        for disk in &self.disks {
            // Closing again what is closed is nothing; on the way of another error, that is the one to tell.
            let _ = self.host.set_writable(&disk.disk, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zpool_is_told_every_disk_in_its_place() {
        let disk = |name: &str| DataDisk {
            disk: name.parse().unwrap(),
            identity: name.to_owned(),
            diskseq: None,
            size: siris_ibu::ByteSize::mib(1),
            device: format!("/dev/disk/by-id/{name}"),
            lost: Vec::new(),
            wipes: Vec::new(),
        };
        let plan = NewPoolPlan {
            name: "homePool".into(),
            layout: PoolLayout::Raidz2,
            disks: ["a", "b", "c"].map(disk).into(),
            spares: vec![disk("s")],
            log: ["l", "m"].map(disk).into(),
            comment: "siris-install 1".into(),
        };
        let text = arguments(&plan).join(" ");
        let wanted = "homePool raidz2 /dev/disk/by-id/a /dev/disk/by-id/b /dev/disk/by-id/c \
                      log mirror /dev/disk/by-id/l /dev/disk/by-id/m spare /dev/disk/by-id/s";
        assert!(text.starts_with("create ") && text.ends_with(wanted), "{text}");
        assert!(!text.contains(" -f"), "ZFS's own refusals stay");
        let single = NewPoolPlan { layout: PoolLayout::Stripe, log: vec![], spares: vec![], ..plan };
        assert!(arguments(&single).join(" ").contains("homePool /dev/disk/by-id/a"));
    }
}
