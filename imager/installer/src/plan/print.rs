//! A plan as a person reads it, on a screen of 80 columns.

use std::fmt;

use siris_ibu::ByteSize;

use super::pools::Fate;
use super::{HostId, Plan, TargetPlan};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Install {} (id {})", self.image, self.id)?;
        for target in &self.targets {
            write!(f, "{target}")?;
        }
        if let Some(pool) = &self.new_pool {
            let layout = pool.layout.vdev().0;
            writeln!(f, "\nMAKES pool \"{}\": {layout} of {}", pool.name, pool.disks.len())?;
            for (role, disks) in [("", &pool.disks), ("log", &pool.log), ("spare", &pool.spares)] {
                for data in disks {
                    let (disk, size) = (&data.disk, data.size.rounded());
                    writeln!(f, "  OVERWRITES /dev/{disk} {role}: {size}, serial {}", data.identity)?;
                    for lost in &data.lost {
                        writeln!(f, "    lost: {lost}")?;
                    }
                }
            }
        }
        for disabled in &self.disabled {
            let (disk, identity, os) = (&disabled.disk, &disabled.identity, &disabled.os);
            writeln!(f, "\nMADE UNBOOTABLE /dev/{disk}: serial {identity}, {os}")?;
        }
        let count = self.fenced.len();
        writeln!(f, "\nStays as it is, not one byte written: {count} {}", if count == 1 { "disk" } else { "disks" })?;
        for fenced in &self.fenced {
            let medium = if fenced.medium { " (the installer's medium)" } else { "" };
            let line = format!("  {:<8} {:<20} {}{medium}", fenced.disk, fenced.identity, fenced.carries);
            writeln!(f, "{}", crate::report::clip(&line, 79))?;
        }
        for pool in &self.pools {
            let fate = match pool.fate {
                Fate::Import => "imported by the new system",
                Fate::Leave => "left alone, not imported",
                Fate::Destroyed => "was destroyed before",
                Fate::Destroy => "GIVEN UP",
            };
            let (found, all) = pool.devices;
            writeln!(f, "  pool \"{}\" (guid {})", pool.name, pool.guid)?;
            writeln!(f, "    {}, {found} of {all} devices: {fate}", pool.health)?;
        }
        writeln!(f, "\nThe new system")?;
        match self.hostid {
            HostId::New => writeln!(f, "  a host id of its own")?,
            HostId::None => writeln!(f, "  no host id, as the pool has none")?,
            HostId::Id(id) => writeln!(f, "  host id {id:08x}")?,
        }
        for line in &self.settings {
            writeln!(f, "  {line}")?;
        }
        for note in &self.notes {
            writeln!(f, "Note: {note}")?;
        }
        write!(f, "Then: ")?;
        f.write_str(match self.end {
            crate::answers::End::Reboot => "reboot",
            crate::answers::End::Poweroff => "switch off",
            crate::answers::End::Eject => "eject the medium and reboot",
            crate::answers::End::Stay => "nothing",
        })?;
        writeln!(f)
    }
}

impl fmt::Display for TargetPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.model.as_deref().unwrap_or("unknown model");
        let size = self.size.rounded();
        writeln!(f, "\nOVERWRITES /dev/{}: {size}, {model}, serial {}", self.disk, self.identity)?;
        if self.lost.is_empty() {
            writeln!(f, "  nothing is recognised on it")?;
        }
        for lost in &self.lost {
            writeln!(f, "  lost: {lost}")?;
        }
        for kept in &self.kept {
            let (was, size) = (kept.was, kept.size.rounded());
            let number = if kept.number == was { String::new() } else { format!(" (becomes {})", kept.number) };
            writeln!(f, "  STAYS: partition {was}{number}: {size}, {}", kept.carries)?;
        }
        writeln!(f, "  #  label                start         size")?;
        for part in &self.parts {
            let start = ByteSize::from_bytes(part.start);
            writeln!(f, "  {:<2} {:<13} {start:>12} {:>12}", part.number, part.label, part.size)?;
        }
        Ok(())
    }
}
