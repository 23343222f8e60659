//! The root image: the base, and over it what makes it SIRIS.
//!
//! Owns: the tree laid over the base (profile trees, agent, modules, generated files), and the EROFS image with
//! its verity tree.
//! Never: changes the base layer. The two are seen as one through an overlay while the image is written.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Tool};
use siris_ibu::verity::{self, Salt};
use siris_ibu::{Sha256, Version};

use crate::cache::{Cache, Key, Layer};
use crate::error::BuildError;
use crate::profile::Profile;
use crate::progress::Progress;
use crate::roots::{builder, megabytes};

/// What a root image is made of.
#[derive(Debug, Clone, Copy)]
pub struct RootInput<'a> {
    /// The profile; only what is inside the root counts, not its install-time defaults.
    pub profile: &'a Profile,
    /// The image's version.
    pub version: &'a Version,
    /// Kernel release.
    pub kernel: &'a str,
    /// The directory of profiles, where trees are.
    pub profiles: &'a Path,
    /// The builder root.
    pub builder: &'a Layer,
    /// The base root.
    pub base: &'a Layer,
    /// ZFS's modules.
    pub zfs: &'a Layer,
    /// The agent.
    pub agent: &'a Layer,
    /// GRUB, so that an installed system can install others.
    pub grub: &'a Layer,
    /// Public keys that manifests are verified with, as files.
    pub keys: &'a [PathBuf],
    /// Time stamp of every file.
    pub epoch: u64,
}

impl RootInput<'_> {
    fn key(&self) -> Result<Key, BuildError> {
        let p = self.profile;
        let mut key = Key::new()
            .with("script", ASSEMBLE)
            .with("salt", "of the product")
            .with("product", &p.product)
            .with("version", self.version)
            .with("epoch", self.epoch)
            .with("builder", self.builder.digest)
            .with("base", self.base.digest)
            .with("zfs", self.zfs.digest)
            .with("agent", self.agent.digest)
            .with("grub", self.grub.digest)
            .with(
                "lists",
                format!("{:?}{:?}{:?}{:?}{:?}{:?}", p.remove, p.enable, p.disable, p.mask, p.persist, p.volatile),
            )
            .with("health", format!("{:?}{}{:?}", p.health_units, p.state_free_min, p.upgrade_checks));
        for tree in &p.trees {
            key = key.with_files(&self.profiles.join(tree))?;
        }
        for file in self.keys {
            key = key.with_files(file)?;
        }
        Ok(key.with_files(&self.profiles.join("base/boot"))?)
    }

    /// The layer with `root.erofs` and `sizes`.
    ///
    /// # Errors
    /// When a tree is missing or a tool fails.
    pub fn image(&self, cache: &Cache, progress: &Progress) -> Result<Layer, BuildError> {
        let key = self.key()?;
        cache.layer("rootimage", &key, |half| {
            let step = progress.step("root image");
            let over = half.join("over");
            self.overlay(&over)?;
            let uuid = uuid_of(&key.digest());
            let root = builder(self.builder)
                .bind(self.base.path.join("root"), "/siris/base")
                .bind(&over, "/siris/over")
                .bind(half, "/siris/out");
            let log = half.join("log");
            let p = &self.profile;
            let (remove, units) = (p.remove.join("\n"), [&p.enable, &p.mask, &p.disable, &p.upgrade_checks]);
            Cmd::new(Tool::Bash)
                .clean_env()
                .env("SOURCE_DATE_EPOCH", self.epoch.to_string())
                .env("TZ", "UTC")
                .args([
                    "-euo",
                    "pipefail",
                    "-c",
                    ASSEMBLE,
                    "root",
                    self.kernel,
                    &uuid,
                    &self.epoch.to_string(),
                    &remove,
                ])
                .args(units.map(|units| units.join(" ")))
                .in_root(&root)
                .log(&log)
                .run()
                .map_err(|source| BuildError::Step { step: "root image", log: log.clone(), source })?;
            let (config, kept) = (over.join("usr/lib/siris/boot/grub.cfg"), half.join("grub.cfg"));
            fs::rename(&config, &kept).map_err(BuildError::io("keep", &config))?;
            fs::remove_dir_all(&over).map_err(BuildError::io("remove", &over))?;
            let size = hash_tree(half, &self.profile.product, &uuid)?;
            step.done(megabytes(size));
            Ok(())
        })
    }

    /// Lays out everything that goes over the base.
    fn overlay(&self, over: &Path) -> Result<(), BuildError> {
        copy_tree(&self.agent.path.join("root"), over)?;
        let modules = over.join("usr/lib/modules").join(self.kernel);
        copy_tree(&self.zfs.path.join("modules").join(self.kernel), &modules)?;
        for tree in &self.profile.trees {
            copy_tree(&self.profiles.join(tree), over)?;
        }
        let boot = over.join("usr/lib/siris/boot");
        for name in ["boot.img", "core.img", "BOOTX64.EFI"] {
            let bytes = fs::read(self.grub.path.join(name)).map_err(BuildError::io("read", &self.grub.path))?;
            put(&boot.join(name), &bytes)?;
        }
        let config = self.profiles.join("base/boot/grub.cfg");
        put(&boot.join("grub.cfg"), &fs::read(&config).map_err(BuildError::io("read", &config))?)?;
        for file in self.keys {
            let name = file.file_name().unwrap_or_default();
            put(&over.join("usr/lib/siris/keys").join(name), &fs::read(file).map_err(BuildError::io("read", file))?)?;
        }
        put(&over.join("usr/lib/siris/state"), self.state_list().as_bytes())?;
        put(&over.join("usr/lib/siris/agent.toml"), self.agent_settings().as_bytes())?;
        put(&over.join("usr/lib/os-release"), self.os_release().as_bytes())?;
        put(&over.join("etc/hosts"), b"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")?;
        put(&over.join("etc/fstab"), b"# Nothing: the initrd mounts what there is.\n")?;
        put(&over.join("etc/machine-id"), b"uninitialized\n")?;
        Ok(())
    }

    fn state_list(&self) -> String {
        let mut text = String::new();
        for (kind, dirs) in [("persist", &self.profile.persist), ("volatile", &self.profile.volatile)] {
            for dir in dirs {
                text.push_str(&format!("{kind} {dir}\n"));
            }
        }
        text
    }

    fn agent_settings(&self) -> String {
        format!(
            "# Made from the image's profile.\nschema = 1\n\n[health]\nunits = {:?}\nstate-free-min = {:?}\n\n\
             [upgrade]\nchecks = {:?}\n",
            self.profile.health_units, self.profile.state_free_min, self.profile.upgrade_checks
        )
    }

    fn os_release(&self) -> String {
        let (product, version, suite) = (&self.profile.product, self.version, &self.profile.suite);
        format!(
            "NAME=\"SIRIS OS\"\nID=siris\nID_LIKE=debian\nPRETTY_NAME=\"SIRIS OS {version} ({product})\"\nVERSION_ID={version}\n\
             VERSION_CODENAME={suite}\nIMAGE_ID={product}\nIMAGE_VERSION={version}\n"
        )
    }
}

/// Writes `root.tree` and `verity.json` beside `root.erofs`; returns the image's size.
///
/// The salt is one for all versions of a product: so a box sees by its own tree which blocks of the next version it has.
fn hash_tree(dir: &Path, product: &str, uuid: &str) -> Result<u64, BuildError> {
    let payload = |message: String| BuildError::Payload { what: "hashing the root image", message };
    let (image_path, tree_path) = (dir.join("root.erofs"), dir.join("root.tree"));
    let image = File::open(&image_path).map_err(BuildError::io("open", &image_path))?;
    let size = image.metadata().map_err(BuildError::io("look at", &image_path))?.len();
    let mut tree = BufWriter::new(File::create(&tree_path).map_err(BuildError::io("make", &tree_path))?);
    let uuid = uuid.parse().map_err(|e| payload(format!("{uuid}: {e}")))?;
    let salt = Salt::from_bytes(*Sha256::of(format!("siris verity salt of {product}").as_bytes()).as_bytes());
    let verity = verity::build(BufReader::with_capacity(1 << 20, image), size, salt, uuid, &mut tree)
        .map_err(|e| payload(e.to_string()))?;
    tree.flush().map_err(BuildError::io("write", &tree_path))?;
    let json = serde_json::to_string(&verity).map_err(|e| payload(e.to_string()))?;
    let path = dir.join("verity.json");
    fs::write(&path, json).map_err(BuildError::io("write", &path))?;
    Ok(size)
}

/// In the builder: `$1` kernel, `$2` UUID, `$3` epoch, `$4` paths to remove, `$5` units to enable,
/// `$6` to mask, `$7` to disable, `$8` that have to be there.
const ASSEMBLE: &str = r#"
umask 022
mkdir -p /siris/mem /siris/root
mount -t tmpfs -o mode=0755 siris /siris/mem
mkdir /siris/mem/upper /siris/mem/work
mount -t overlay -o lowerdir=/siris/over:/siris/base,upperdir=/siris/mem/upper,workdir=/siris/mem/work siris /siris/root
root=/siris/root
while read -r path; do
    # An overlay shows what lies below an absent path as absent: nothing to do then.
    [ ! -e "$root$path" ] && [ ! -L "$root$path" ] || rm -rf "${root:?}$path"
done <<< "$4"
: > $root/etc/machine-id; echo uninitialized > $root/etc/machine-id
mkdir -p $root/boot $root/var/lib/dbus $root/state
while read -r _ dir; do mkdir -p "$root$dir"; done < /siris/over/usr/lib/siris/state
ln -sfn /etc/machine-id $root/var/lib/dbus/machine-id
ln -sfn ../run/systemd/resolve/stub-resolv.conf $root/etc/resolv.conf
ln -sfn ../usr/lib/os-release $root/etc/os-release
ln -sfn ../proc/self/mounts $root/etc/mtab
ln -sfn multi-user.target $root/usr/lib/systemd/system/default.target
rm -f $root/etc/systemd/system/default.target
rm -rf $root/etc/systemd/system/multi-user.target.wants/remote-fs.target $root/etc/rc?.d
chown -h root:root $root/state
chmod 700 $root/root
systemd-sysusers --root=$root
passwd_root=$(grep '^root:' $root/etc/shadow)
sed -i "s|^root:[^:]*:[^:]*:|root:!*:19000:|" $root/etc/shadow
rm -f $root/etc/shadow- $root/etc/passwd- $root/etc/group- $root/etc/gshadow- $root/etc/.pwd.lock
for unit in $7; do systemctl --root=$root disable --quiet "$unit"; done
for unit in $5; do systemctl --root=$root enable --quiet "$unit"; done
for unit in $6; do systemctl --root=$root mask --quiet "$unit" 2>/dev/null || ln -sfn /dev/null "$root/etc/systemd/system/$unit"; done
for unit in $8; do
    [ -f $root/usr/lib/systemd/system/"$unit" ] || { echo "upgrade.checks: the root has no unit $unit" >&2; exit 1; }
done
depmod -b $root "$1"
find $root/usr/lib/modules -name 'modules.*' -newermt @0 -exec touch -d @"$3" {} +
find $root -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
find $root/var/cache $root/var/tmp $root/var/log -mindepth 1 -maxdepth 1 -exec rm -rf {} +
rm -rf $root/run/* $root/tmp/*
# What each package costs: the bytes of its files that are in the root.
dpkg-query --root=$root -W -f '${db-fsys:Files}\n---${binary:Package}\n' | while IFS= read -r line; do
    case $line in
    ---*) echo "$line" ;;
    *" "/*) echo "${line# }" ;;
    esac
done > /siris/mem/files
package_sizes() {
    find $root -xdev -type f -printf '%s %P\n' | awk '
        NR == FNR { size["/" $2] = $1; next }
        /^---/ { name = substr($0, 4); if (sum) print sum, name; sum = 0; next }
        { sum += size[$0]; delete size[$0] }
        END { for (f in size) rest += size[f]; print rest, "(everything that is in no package)" }' - /siris/mem/files
}
package_sizes | sort -rn > /siris/out/sizes
# No tails among the inodes: there, the rest of one file moves those of all that follow, and every later version would
# differ in blocks whose files are the same. It costs 6 % of the root, of zeros.
mkfs.erofs --quiet -T"$3" -U"$2" -x1 -E^inline_data /siris/out/root.erofs $root
"#;

/// A UUID that depends only on the digest, so that the same inputs give the same image.
pub fn uuid_of(digest: &Sha256) -> String {
    let hex = digest.to_string();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

fn make_dirs(dir: &Path) -> Result<(), BuildError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent)?;
    }
    fs::create_dir(dir).map_err(BuildError::io("make", dir))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(BuildError::io("set the mode of", dir))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if let Some(parent) = path.parent() {
        make_dirs(parent)?;
    }
    fs::write(path, bytes).map_err(BuildError::io("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(BuildError::io("set the mode of", path))
}

/// Copies a tree with modes normalised to 755 and 644, whatever the umask of whoever checked it out. Directories come
/// with their first file: an empty one is nothing that git could have checked out, only left behind.
fn copy_tree(from: &Path, to: &Path) -> Result<(), BuildError> {
    for entry in fs::read_dir(from).map_err(BuildError::io("read", from))? {
        let entry = entry.map_err(BuildError::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(BuildError::io("look at", &source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(BuildError::io("read", &source))?;
            make_dirs(to)?;
            std::os::unix::fs::symlink(link, &target).map_err(BuildError::io("link", &target))?;
        } else {
            let executable =
                fs::metadata(&source).map_err(BuildError::io("look at", &source))?.permissions().mode() & 0o111 != 0;
            // Never `fs::copy`: it would take the source's mode along.
            put(&target, &fs::read(&source).map_err(BuildError::io("read", &source))?)?;
            if executable {
                fs::set_permissions(&target, fs::Permissions::from_mode(0o755))
                    .map_err(BuildError::io("set the mode of", &target))?;
            }
        }
    }
    Ok(())
}
