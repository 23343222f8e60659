//! `inspect`: what is on which disk, for a person with a screen of 80 columns and 25 lines.

use std::fmt::Write as _;

use crate::facts::{Content, Disk, Facts, Health, Pool, ZfsRole};

/// One content, in a few words.
pub fn content(content: &Content, facts: &Facts) -> String {
    match content {
        Content::Zfs(zfs) => {
            let pool = zfs.pool.and_then(|guid| facts.pool(guid)).map(|pool| format!("\"{}\"", pool.name));
            let pool = pool.or_else(|| zfs.pool.map(|guid| format!("guid {guid}"))).unwrap_or_default();
            let role = match zfs.role {
                ZfsRole::Data => "pool",
                ZfsRole::Log => "log of pool",
                ZfsRole::Spare => "spare of pool",
                ZfsRole::Cache => "cache of pool",
                ZfsRole::Stale => "stale label of pool",
                ZfsRole::Unknown if zfs.vdev.is_none() => "damaged ZFS labels",
                ZfsRole::Unknown => "label of pool",
            };
            format!("{role} {pool}").trim_end().to_owned()
        }
        Content::Md(md) => format!("md raid{} {}", md.level, md.metadata),
        Content::Lvm => "LVM".to_owned(),
        Content::Luks => "LUKS".to_owned(),
        Content::Swap => "swap".to_owned(),
        Content::FileSystem(fs) => match &fs.label {
            Some(label) => format!("{} \"{label}\"", fs.kind),
            None => fs.kind.clone(),
        },
        Content::Os(os) => match &os.hostname {
            Some(hostname) => format!("{} ({hostname})", os.name),
            None => os.name.clone(),
        },
        Content::Siris(siris) => format!("SIRIS OS {}", siris.version.as_deref().unwrap_or("(unknown)")),
    }
}

/// A pool, by name and guid.
pub fn pool(pool: &Pool) -> String {
    format!("\"{}\" (guid {}), {}", pool.name, pool.guid, pool.health)
}

/// Everything on a disk, the most telling first, in few words.
pub fn carries(disk: &Disk, facts: &Facts) -> String {
    if let Some(why) = &disk.unreadable {
        return format!("unreadable: {why}");
    }
    let rank = |content: &Content| match content {
        Content::Zfs(_) => 0,
        Content::Siris(_) | Content::Os(_) => 1,
        Content::Md(_) | Content::Lvm | Content::Luks => 2,
        Content::FileSystem(_) => 3,
        Content::Swap => 4,
    };
    let mut all: Vec<(u8, String)> = disk.contents().map(|(_, c)| (rank(c), content(c, facts))).collect();
    all.sort();
    all.dedup();
    // A file system is worth a word only where nothing says more.
    let best = all.iter().map(|(rank, _)| *rank).min().unwrap_or(9);
    let words: Vec<String> = all.into_iter().filter(|(rank, _)| *rank <= best.max(2)).map(|(_, text)| text).collect();
    match (words.is_empty(), disk.boots()) {
        (false, _) => words.join(", "),
        (true, Some(what)) => what,
        (true, None) if disk.partitions.is_empty() => "nothing recognised".to_owned(),
        (true, None) => format!("{} partitions, nothing recognised", disk.partitions.len()),
    }
}

/// The table.
pub fn table(facts: &Facts) -> String {
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = writeln!(text, "{:<9}{:>9} {:<21}{:<7}carries", "disk", "size", "serial", "bus");
    for disk in &facts.disks {
        let mut flags = String::new();
        if facts.is_medium(disk) {
            flags.push_str(" [medium]");
        }
        if let Some(first) = &disk.path_of {
            flags.push_str(&format!(" [same as {first}]"));
        }
        if facts.live && !disk.read_only {
            flags.push_str(" [NOT FENCED]");
        }
        if !disk.holders.is_empty() || !disk.used_as.is_empty() {
            flags.push_str(" [in use]");
        }
        let (name, size) = (&disk.name, disk.size.rounded());
        let bus = disk.transport.as_deref().unwrap_or("-");
        let serial = clip(disk.identity(), 20);
        let line = format!("{name:<9}{size:>9} {serial:<21}{bus:<7}{}{flags}", carries(disk, facts));
        let _ = writeln!(text, "{}", clip(&line, 79));
    }
    for pool in &facts.pools {
        let state = match pool.health {
            Health::Complete => "complete".to_owned(),
            health => format!("{health}: {}", pool.faults.join("; ")),
        };
        let host = pool.hostid.map_or("no host id".to_owned(), |id| format!("host id {id:08x}"));
        let (found, all) = (pool.members.len(), pool.devices);
        let _ = writeln!(
            text,
            "pool \"{}\" guid {} {}, {found} of {all} devices, {host}",
            pool.name, pool.guid, pool.state
        );
        let _ = writeln!(text, "  {state}; {}", pool.layout.join(", "));
        for conflict in &pool.conflicts {
            let _ = writeln!(text, "  {conflict}");
        }
    }
    text
}

/// What `inspect` recommends: the disk that the system would go on without a word, or the choice there is.
pub fn recommendation(facts: &Facts) -> String {
    let stick = |disk: &Disk| disk.removable || disk.transport.as_deref() == Some("usb");
    let free = |disk: &&Disk| {
        let pool = disk.contents().any(|(_, content)| matches!(content, Content::Zfs(_)));
        let used = !disk.holders.is_empty() || !disk.used_as.is_empty();
        !pool && !used && !stick(disk) && !facts.is_medium(disk) && disk.unreadable.is_none() && disk.path_of.is_none()
    };
    let found: Vec<String> = facts.disks.iter().filter(free).map(|disk| format!("/dev/{}", disk.name)).collect();
    match &found[..] {
        [] => "no disk is free of pools: name the one that is to be given up\n".to_owned(),
        [disk] => format!("recommended for the system: {disk}, the only disk without a pool\n"),
        disks => format!("without a pool, one of them for the system: {}\n", disks.join(", ")),
    }
}

/// At most `width` characters of a line.
pub(crate) fn clip(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['~']).collect(),
        false => text.to_owned(),
    }
}
