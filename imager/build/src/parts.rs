//! The parts compiled or generated inside the builder: ZFS modules, the agent, the initrd, GRUB.
//!
//! Owns: how each is made, and what it is keyed by.
//! Never: writes into the image's root. Each part is a layer that the root or the disk is put together from.

use std::fs;
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Root, Tool};

use crate::cache::{Cache, Key, Layer};
use crate::error::BuildError;
use crate::lock::Lock;
use crate::progress::Progress;
use crate::roots::builder;
use crate::workshop::{TOOLCHAIN, workshop};

/// What every part needs.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Where layers are.
    pub cache: &'a Cache,
    /// Whom to tell.
    pub progress: &'a Progress,
    /// The builder root.
    pub builder: &'a Layer,
    /// Seconds since 1970 that everything is stamped with.
    pub epoch: u64,
}

impl Parts<'_> {
    /// What a part made by `script` depends on at least.
    fn key(&self, script: &str) -> Key {
        Key::new().with("script", script).with("epoch", self.epoch).with("builder", self.builder.digest)
    }

    /// A shell script in the builder, with a log.
    fn script(
        &self,
        root: &Root,
        step: &'static str,
        log: &Path,
        script: &str,
        args: &[&str],
    ) -> Result<(), BuildError> {
        Cmd::new(Tool::Bash)
            .clean_env()
            .env("SOURCE_DATE_EPOCH", self.epoch.to_string())
            .env("TZ", "UTC")
            .args(["-euo", "pipefail", "-c", &format!("umask 022\n{script}"), step])
            .args(args)
            .in_root(root)
            .log(log)
            .run()
            .map_err(|source| BuildError::Step { step, log: log.to_owned(), source })
    }

    /// ZFS's kernel modules for `kernel`, from the sources of the locked `zfs-dkms` package file.
    ///
    /// # Errors
    /// When the builder has no headers for this kernel, or the build fails.
    pub fn zfs_modules(&self, sources: &Path, kernel: &str) -> Result<Layer, BuildError> {
        let headers = self.builder.path.join("root/usr/lib/modules").join(kernel).join("build");
        if !headers.is_symlink() {
            return Err(BuildError::Incomplete {
                what: format!("headers for the image's kernel {kernel} (in the builder): run `cargo xtask update`"),
            });
        }
        let package = sources.file_name().unwrap_or_default().to_string_lossy();
        let key = self.key(BUILD_ZFS).with("kernel", kernel).with("sources", package);
        self.cache.layer("zfs", &key, |half| {
            let step = self.progress.step(&format!("ZFS modules for {kernel}"));
            let unpacked = half.join("sources");
            let unpack = Cmd::new(Tool::DpkgDeb).arg("--extract").args([sources, &unpacked]).run();
            unpack.map_err(|source| BuildError::Tool { what: "unpacking ZFS's sources", source })?;
            let root = builder(self.builder).bind(half, "/siris/zfs");
            let log = half.join("log");
            self.script(&root, "zfs", &log, BUILD_ZFS, &[kernel])?;
            step.done("compiled");
            Ok(())
        })
    }

    /// The agent and its command line, linked against the libraries of the target's suite.
    ///
    /// `checkout` is the workspace, `target` keeps the compiler's intermediate results.
    ///
    /// # Errors
    /// When the compiler fails.
    pub fn agent(&self, checkout: &Path, target: &Path) -> Result<Layer, BuildError> {
        let mut key = self.key(BUILD_AGENT).with("toolchain", TOOLCHAIN);
        for input in AGENT_SOURCES {
            key = key.with_files(&checkout.join(input))?;
        }
        self.cache.layer("agent", &key, |half| {
            let step = self.progress.step("agent");
            let root = workshop(builder(self.builder), checkout, target)?.bind(half, "/siris/out");
            let log = half.join("log");
            self.script(&root, "agent", &log, &format!("{TOOLCHAIN}\n{BUILD_AGENT}"), &[])?;
            step.done("compiled");
            Ok(())
        })
    }

    /// The initrd for `kernel` out of the image's base: every storage driver, verity, our module; no network, no shell.
    ///
    /// # Errors
    /// When dracut fails.
    pub fn initrd(&self, base: &Layer, kernel: &str, module: &Path) -> Result<Layer, BuildError> {
        let key = self.key(MAKE_INITRD).with("base", base.digest).with_files(module)?;
        self.cache.layer("initrd", &key, |half| {
            let step = self.progress.step("initrd");
            let image = base.path.join("root");
            // A small profile has none, and must not get the builder's.
            let (firmware, none) = (image.join("usr/lib/firmware"), half.join("no-firmware"));
            fs::create_dir(&none).map_err(BuildError::io("make", &none))?;
            let root = builder(self.builder)
                .bind(image.join("usr/lib/modules"), "/usr/lib/modules")
                .bind(if firmware.is_dir() { &firmware } else { &none }, "/usr/lib/firmware")
                .bind(module, "/siris/90siris")
                .bind(half, "/siris/out");
            let log = half.join("log");
            self.script(&root, "initrd", &log, MAKE_INITRD, &[kernel])?;
            fs::remove_dir(&none).map_err(BuildError::io("remove", &none))?;
            let size = fs::metadata(half.join("initrd")).map(|m| m.len()).unwrap_or_default();
            step.done(crate::roots::megabytes(size));
            Ok(())
        })
    }

    /// The initrd of the installer's medium: what a medium hangs on, and what loads the OS from it.
    ///
    /// `initrds` is the directory of our dracut modules, `keys` are the public keys that bundles are verified with.
    ///
    /// # Errors
    /// When dracut fails.
    pub fn live_initrd(&self, live: &LiveInput<'_>) -> Result<Layer, BuildError> {
        let mut key = self
            .key(MAKE_LIVE_INITRD)
            .with("base", live.base.digest)
            .with("agent", live.agent.digest)
            .with_files(&live.initrds.join("90siris"))?
            .with_files(&live.initrds.join("91siris-live"))?
            .with_files(live.fence)?;
        for file in live.keys {
            key = key.with_files(file)?;
        }
        self.cache.layer("liveinitrd", &key, |half| {
            let step = self.progress.step("live initrd");
            let keys = half.join("keys");
            fs::create_dir(&keys).map_err(BuildError::io("make", &keys))?;
            for file in live.keys {
                let copy = keys.join(file.file_name().unwrap_or_default());
                fs::copy(file, &copy).map_err(BuildError::io("copy", file))?;
            }
            let root = builder(self.builder)
                .bind(live.base.path.join("root/usr/lib/modules"), "/usr/lib/modules")
                .bind(live.initrds, "/siris/initrds")
                .bind(live.fence, "/siris/fence.rules")
                .bind(live.agent.path.join("live"), "/siris/live")
                .bind(&keys, "/siris/keys")
                .bind(half, "/siris/out");
            let log = half.join("log");
            self.script(&root, "live-initrd", &log, MAKE_LIVE_INITRD, &[live.kernel])?;
            fs::remove_dir_all(&keys).map_err(BuildError::io("remove", &keys))?;
            let size = fs::metadata(half.join("initrd")).map(|m| m.len()).unwrap_or_default();
            step.done(crate::roots::megabytes(size));
            Ok(())
        })
    }

    /// GRUB for the installer's medium: `eltorito.img` and `boot_hybrid.img` for a BIOS, `BOOTX64.EFI`.
    ///
    /// # Errors
    /// When `grub-mkimage` fails.
    pub fn grub_of_medium(&self) -> Result<Layer, BuildError> {
        let modules = format!("{GRUB_MODULES} {MEDIUM_MODULES}");
        let key = self.key(MAKE_MEDIUM_GRUB).with("modules", &modules);
        self.cache.layer("mediumgrub", &key, |half| {
            let step = self.progress.step("GRUB of the medium");
            let root = builder(self.builder).bind(half, "/siris/out");
            self.script(&root, "medium-grub", &half.join("log"), MAKE_MEDIUM_GRUB, &[&modules])?;
            step.done("two firmwares");
            Ok(())
        })
    }

    /// GRUB for both firmwares, which reads `/siris/grub.cfg` of the partition it was started from.
    ///
    /// # Errors
    /// When `grub-mkimage` fails.
    pub fn grub(&self) -> Result<Layer, BuildError> {
        let key = self.key(MAKE_GRUB).with("modules", GRUB_MODULES);
        self.cache.layer("grub", &key, |half| {
            let step = self.progress.step("GRUB");
            let root = builder(self.builder).bind(half, "/siris/out");
            self.script(&root, "grub", &half.join("log"), MAKE_GRUB, &[GRUB_MODULES])?;
            step.done("two firmwares");
            Ok(())
        })
    }
}

/// What the live initrd is made of.
#[derive(Debug, Clone, Copy)]
pub struct LiveInput<'a> {
    /// The base root, for its kernel modules.
    pub base: &'a Layer,
    /// Our programs.
    pub agent: &'a Layer,
    /// Kernel release.
    pub kernel: &'a str,
    /// The directory of our dracut modules.
    pub initrds: &'a Path,
    /// The udev rule that closes every disk.
    pub fence: &'a Path,
    /// Public keys.
    pub keys: &'a [PathBuf],
}

/// What the programs on a box, and those on a medium, are compiled from.
const AGENT_SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "agent",
    "imager/host",
    "imager/ibu",
    "imager/installer",
    "imager/live",
    "imager/slots",
    "imager/zfs-label",
];

/// `$1`: kernel release.
const BUILD_ZFS: &str = r#"cd /siris/zfs/sources/usr/src/zfs-*
./configure --prefix=/usr --with-config=kernel --disable-debug \
    --with-linux="$(readlink -f /usr/lib/modules/$1/source)" --with-linux-obj="$(readlink -f /usr/lib/modules/$1/build)"
make -j"$(nproc)"
mkdir -p "/siris/zfs/modules/$1/extra"
for module in module/*.ko; do
    strip --strip-debug -o "/siris/zfs/modules/$1/extra/${module##*/}" "$module"
done
test -e "/siris/zfs/modules/$1/extra/zfs.ko"
rm -rf /siris/zfs/sources"#;

const BUILD_AGENT: &str = r#"export RUSTFLAGS="--remap-path-prefix=/siris/checkout=. --remap-path-prefix=/siris/cargo=cargo --remap-path-prefix=/siris/rust=rust"
cargo build --release --offline --locked -p siris-agent -p sirisctl -p siris-installer -p siris-live --features siris-agent/libzetta
install -D -m 755 /siris/target/release/siris-agent /siris/out/root/usr/libexec/siris/siris-agent
install -D -m 755 /siris/target/release/sirisctl /siris/out/root/usr/bin/sirisctl
install -D -m 755 /siris/target/release/siris-installer /siris/out/root/usr/bin/siris-installer
mkdir -p /siris/out/root/usr/share/man/man8
/siris/out/root/usr/bin/siris-installer man /siris/out/root/usr/share/man/man8
install -D -m 755 /siris/target/release/siris-live /siris/out/live/siris-live
sirisctl=/siris/out/root/usr/bin/sirisctl
mkdir -p /siris/out/root/usr/share/bash-completion/completions /siris/out/root/usr/share/man/man1
$sirisctl completions bash > /siris/out/root/usr/share/bash-completion/completions/sirisctl
$sirisctl man /siris/out/root/usr/share/man/man1"#;

/// `$1`: kernel release. Fails where dracut only complains.
const MAKE_INITRD: &str = r#"unset LD_PRELOAD # dracut would take the library along
# A fixed place: its name is written into the initrd.
work=/siris/initrd-work; trap 'rm -rf "$work" /usr/lib/dracut/modules.d/90siris' EXIT
rm -rf "$work" /usr/lib/dracut/modules.d/90siris; mkdir "$work"
cp -r --no-preserve=all /siris/90siris /usr/lib/dracut/modules.d/90siris
chmod 755 /usr/lib/dracut/modules.d/90siris/*.sh
dracut --force --no-hostonly --no-hostonly-cmdline --no-hostonly-i18n --reproducible --kver "$1" --tmpdir "$work" \
    --early-microcode --compress "zstd -9 -T1" --filesystems "erofs ext4 overlay" \
    --add "systemd systemd-initrd systemd-journald systemd-udevd systemd-tmpfiles systemd-modules-load systemd-veritysetup siris" \
    --omit "network network-manager systemd-networkd systemd-resolved plymouth i18n lvm mdraid dmraid crypt nfs
        iscsi nvmf zfs resume multipath btrfs biosdevname kernel-network-modules busybox caps
        systemd-cryptsetup tpm2-tss pcsc fido2 pkcs11 systemd-pcrphase dracut-systemd lunmask bluetooth fips overlay-root virtfs virtiofs systemd-battery-check usrmount" \
    /siris/out/initrd
chmod 644 /siris/out/initrd
! grep -E "^dracut(\[E\]|-install: ERROR)" /siris/out/log"#;

/// `$1`: kernel release. Only what a medium hangs on: the boot loader reads this through a BMC.
const MAKE_LIVE_INITRD: &str = r#"unset LD_PRELOAD # dracut would take the library along
work=/siris/initrd-work; trap 'rm -rf "$work" /usr/lib/dracut/modules.d/91siris-live' EXIT
rm -rf "$work" /usr/lib/dracut/modules.d/91siris-live; mkdir "$work"
cp -r --no-preserve=all /siris/initrds/91siris-live /usr/lib/dracut/modules.d/91siris-live
chmod 755 /usr/lib/dracut/modules.d/91siris-live/*.sh
chmod 755 /siris/live/siris-live
dracut --force --no-hostonly --no-hostonly-cmdline --no-hostonly-i18n --reproducible --kver "$1" --tmpdir "$work" \
    --no-early-microcode --compress "zstd -19 -T1" \
    --modules "base systemd systemd-initrd systemd-journald systemd-udevd systemd-modules-load udev-rules dm fs-lib shutdown siris-live" \
    /siris/out/initrd
chmod 644 /siris/out/initrd
! grep -E "^dracut(\[E\]|-install: ERROR)" /siris/out/log"#;

/// `$1`: modules. The first configuration is run by GRUB's rescue parser, which knows no conditions.
const MAKE_MEDIUM_GRUB: &str = r#"cat > /siris/out/early.cfg <<'END'
search.fs_label SIRIS_INSTALL root
set prefix=($root)/siris
END
grub-mkimage -O i386-pc-eltorito -p /siris -c /siris/out/early.cfg -o /siris/out/eltorito.img biosdisk serial $1
cp --no-preserve=all /usr/lib/grub/i386-pc/boot_hybrid.img /siris/out/boot_hybrid.img
grub-mkimage -O x86_64-efi -p /siris -c /siris/out/early.cfg -o /siris/out/BOOTX64.EFI all_video $1
rm /siris/out/early.cfg"#;

/// What the medium's menu uses beyond what a disk's does.
const MEDIUM_MODULES: &str = "iso9660 part_msdos search search_label search_fs_file chain";

/// `$1`: modules.
const MAKE_GRUB: &str = r#"cp --no-preserve=all /usr/lib/grub/i386-pc/boot.img /siris/out/boot.img
grub-mkimage -O i386-pc -p '(,gpt2)/siris' -o /siris/out/core.img biosdisk serial $1
grub-mkimage -O x86_64-efi -p /siris -o /siris/out/BOOTX64.EFI all_video $1"#;

/// Everything `grub.cfg` and `slot.cfg` use; nothing is loaded from disk later.
const GRUB_MODULES: &str = "part_gpt fat normal linux echo test true regexp loadenv probe hashsum gcry_sha256 sleep terminal boot configfile minicmd";

/// The release of the one kernel in a root.
///
/// # Errors
/// When there is none, or more than one.
pub fn kernel_release(base: &Layer) -> Result<String, BuildError> {
    let dir = base.path.join("root/usr/lib/modules");
    let entries = fs::read_dir(&dir).map_err(BuildError::io("read", &dir))?;
    let mut releases: Vec<String> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
    match (releases.pop(), releases.is_empty()) {
        (Some(release), true) => Ok(release),
        _ => Err(BuildError::Incomplete { what: "exactly one kernel".into() }),
    }
}

/// The package file that holds ZFS's sources.
///
/// # Errors
/// When the lock does not name it.
pub fn zfs_sources(store: &crate::archive::Store, lock: &Lock) -> Result<PathBuf, BuildError> {
    let package = lock
        .package("zfs-dkms")
        .ok_or_else(|| BuildError::Incomplete { what: "zfs-dkms in the builder's lock".into() })?;
    Ok(store.file(package))
}
