//! The one place that spawns processes.
//!
//! Owns: which external programs exist ([`Tool`]), how they are run, in which root, and what an error says.
//! Never: interprets a program's output (the caller parses it, with its fixtures beside the parser).
//! In: typed programs and arguments. Out: captured output, or an error with program, arguments, status and the
//! tail of what it printed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio};

macro_rules! tools {
    ($($variant:ident = $program:literal, $package:literal;)*) => {
        /// Every external program that anything in the workspace runs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "a variant is the program of that name")]
        pub enum Tool { $($variant,)* }

        impl Tool {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Tool] = &[$(Tool::$variant,)*];

            /// The program's name or path, looked up in PATH.
            pub fn program(self) -> &'static str {
                match self { $(Tool::$variant => $program,)* }
            }

            /// The Debian package that has it.
            pub fn package(self) -> &'static str {
                match self { $(Tool::$variant => $package,)* }
            }
        }
    };
}

tools! {
    AptGet = "apt-get", "apt";
    AptCache = "apt-cache", "apt";
    AptHelper = "/usr/lib/apt/apt-helper", "apt";
    Bash = "bash", "bash";
    Blockdev = "blockdev", "util-linux";
    Cargo = "cargo", "cargo";
    Chroot = "chroot", "coreutils";
    Cp = "cp", "coreutils";
    Curl = "curl", "curl";
    DbusDaemon = "dbus-daemon", "dbus-daemon";
    Debugfs = "debugfs", "e2fsprogs";
    Dkms = "dkms", "dkms";
    Dpkg = "dpkg", "dpkg";
    DpkgDeb = "dpkg-deb", "dpkg";
    DpkgQuery = "dpkg-query", "dpkg";
    Dracut = "dracut", "dracut-core";
    DumpErofs = "dump.erofs", "erofs-utils";
    Eject = "eject", "eject";
    FsckExt4 = "fsck.ext4", "e2fsprogs";
    Git = "git", "git";
    GrubMkimage = "grub-mkimage", "grub-common";
    Hostname = "hostname", "hostname";
    Journalctl = "journalctl", "systemd";
    MkfsErofs = "mkfs.erofs", "erofs-utils";
    MkfsExt4 = "mkfs.ext4", "e2fsprogs";
    Libvirtd = "libvirtd", "libvirt-daemon";
    Mmdebstrap = "mmdebstrap", "mmdebstrap";
    NetplanGenerate = "/usr/libexec/netplan/generate", "netplan-generator";
    Nginx = "nginx", "nginx-light";
    Openssl = "openssl", "openssl";
    Python = "python3", "python3";
    Qemu = "qemu-system-x86_64", "qemu-system-x86";
    QemuImg = "qemu-img", "qemu-utils";
    QemuIo = "qemu-io", "qemu-utils";
    Rauc = "rauc", "rauc";
    Rsync = "rsync", "rsync";
    Rustc = "rustc", "rustc";
    Ssh = "ssh", "openssh-client";
    SshKeygen = "ssh-keygen", "openssh-client";
    Sudo = "sudo", "sudo";
    Systemctl = "systemctl", "systemd";
    SystemdRun = "systemd-run", "systemd";
    Udevadm = "udevadm", "udev";
    Unshare = "unshare", "util-linux";
    Veritysetup = "veritysetup", "cryptsetup-bin";
    Virsh = "virsh", "libvirt-clients";
    Xdelta3 = "xdelta3", "xdelta3";
    Zdb = "zdb", "zfsutils-linux";
    Zfs = "zfs", "zfsutils-linux";
    Zpool = "zpool", "zfsutils-linux";
}

impl Tool {
    /// Whether the program can be found: in PATH and the system's own directories, or under `root`.
    pub fn is_present(self, root: Option<&Path>) -> bool {
        let program = Path::new(self.program());
        if program.is_absolute() {
            return in_root(root, program).exists();
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        let dirs: Vec<PathBuf> = match root {
            Some(_) => own.to_vec(),
            None => std::env::split_paths(&path).chain(own).collect(),
        };
        dirs.iter().any(|dir| in_root(root, &dir.join(program)).exists())
    }
}

fn in_root(root: Option<&Path>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// The program is not on this machine.
    #[error("{} is not installed (Debian package {}): run `cargo xtask setup`", .tool.program(), .tool.package())]
    Missing {
        /// The absent program.
        tool: Tool,
    },
    /// It could not be started, or its streams failed.
    #[error("cannot run {command}")]
    Spawn {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran, and failed.
    #[error("{command}: {status}{}", tail_text(.tail))]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of what it printed on standard error (or into its log).
        tail: String,
    },
}

impl CmdError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            CmdError::Missing { .. } => "missing-tool",
            CmdError::Spawn { .. } => "spawn-failed",
            CmdError::Failed { .. } => "tool-failed",
        }
    }
}

fn tail_text(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!("\n{}", tail.trim_end()) }
}

/// A directory bound into a [`Root`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bind {
    from: PathBuf,
    to: PathBuf,
}

/// Another root file system to run programs in, with what is bound into it while they run.
///
/// The binds live in a mount namespace of the command and vanish with it: nothing is left mounted, whatever
/// kills the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    path: PathBuf,
    binds: Vec<Bind>,
}

impl Root {
    /// A root with the host's `/dev`, `/proc`, `/sys`, name resolution and nothing else bound in.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let root = Root { path: path.into(), binds: Vec::new() };
        root.bind("/dev", "/dev")
            .bind("/proc", "/proc")
            .bind("/sys", "/sys")
            .bind("/etc/resolv.conf", "/etc/resolv.conf")
    }

    /// Also binds `from` of the host to `to` inside; `to` is made if absent.
    pub fn bind(mut self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.binds.push(Bind { from: from.into(), to: to.into() });
        self
    }

    /// Where the root lies on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Runs inside a mount namespace of its own: `$1` is the root, then pairs of directories, `--`, the command.
const ENTER: &str = r#"
root=$1; shift
while [ "$1" != -- ]; do
  to="$root$2"
  if [ -d "$1" ]; then mkdir -p "$to"; else [ -e "$to" ] || { mkdir -p "${to%/*}"; : > "$to"; }; fi
  mount --rbind "$1" "$to"
  shift 2
done
shift
exec chroot "$root" "$@"
"#;

/// What libfaketime is told by.
const SHIFTED_CLOCK: [&str; 5] =
    ["FAKETIME", "LD_PRELOAD", "NO_FAKE_STAT", "FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_DISABLE_SHM"];

/// A command being put together.
#[derive(Debug)]
pub struct Cmd {
    tool: Tool,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    root: Option<Root>,
    log: Option<PathBuf>,
    clean_env: bool,
}

impl Cmd {
    /// A command without arguments.
    pub fn new(tool: Tool) -> Self {
        Cmd { tool, args: Vec::new(), env: Vec::new(), cwd: None, root: None, log: None, clean_env: false }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment but for PATH, so that what is built does not depend on the caller's.
    ///
    /// A clock shifted with libfaketime (`FAKETIME` is set) stays shifted: so a test shows that it does not matter.
    pub fn clean_env(mut self) -> Self {
        self.clean_env = true;
        self
    }

    /// Runs it in this directory (of the host).
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Runs it inside another root. Needs root rights.
    pub fn in_root(mut self, root: &Root) -> Self {
        self.root = Some(root.clone());
        self
    }

    /// Appends what it prints to this file, which an error's tail is then taken from.
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    fn command(&self) -> std::process::Command {
        let mut command = match &self.root {
            None => std::process::Command::new(self.tool.program()),
            Some(root) => {
                let mut c = std::process::Command::new(Tool::Unshare.program());
                c.args(["--mount", "--propagation", "private", "--", "sh", "-euc", ENTER, "enter"]).arg(root.path());
                for bind in &root.binds {
                    c.arg(&bind.from).arg(&bind.to);
                }
                c.arg("--").arg(self.tool.program());
                c
            }
        };
        command.args(&self.args);
        if self.clean_env {
            command
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("LC_ALL", "C.UTF-8")
                .env("HOME", "/root");
            if std::env::var_os("FAKETIME").is_some() {
                command.envs(
                    std::env::vars_os().filter(|(key, _)| SHIFTED_CLOCK.contains(&key.to_string_lossy().as_ref())),
                );
            }
        }
        if matches!(self.tool, Tool::Cargo | Tool::Rustc) {
            // The compiler's allocator and libfaketime wait for each other for ever; what it makes has no date.
            command.env_remove("LD_PRELOAD");
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        command
    }

    fn started<T>(&self, result: io::Result<T>) -> Result<T, CmdError> {
        result.map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                CmdError::Missing { tool: if self.root.is_some() { Tool::Unshare } else { self.tool } }
            } else {
                CmdError::Spawn { command: self.to_string(), source }
            }
        })
    }

    fn checked(&self, status: ExitStatus, tail: String) -> Result<(), CmdError> {
        if status.success() {
            return Ok(());
        }
        if self.root.is_some() && status.code() == Some(127) {
            return Err(CmdError::Missing { tool: self.tool });
        }
        Err(CmdError::Failed { command: self.to_string(), status, tail })
    }

    /// Runs it to its end; what it prints goes to the log, or is kept for the error's tail.
    ///
    /// # Errors
    /// When it cannot be started or exits other than 0.
    pub fn run(self) -> Result<(), CmdError> {
        match &self.log {
            None => self.output().map(drop),
            Some(path) => {
                let log = OpenOptions::new().create(true).append(true).open(path);
                let log = self.started(log)?;
                let both = self.started(log.try_clone())?;
                let status = self.command().stdin(Stdio::null()).stdout(both).stderr(log).status();
                let status = self.started(status)?;
                self.checked(status, if status.success() { String::new() } else { file_tail(path) })
            }
        }
    }

    /// Runs it to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or exits other than 0.
    pub fn output(self) -> Result<Vec<u8>, CmdError> {
        let output = self.command().stdin(Stdio::null()).output();
        let output = self.started(output)?;
        let tail = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        self.checked(output.status, last_lines(&String::from_utf8_lossy(tail)))?;
        Ok(output.stdout)
    }

    /// Like [`Cmd::output`], as text with invalid UTF-8 replaced.
    ///
    /// # Errors
    /// As [`Cmd::output`].
    pub fn text(self) -> Result<String, CmdError> {
        Ok(String::from_utf8_lossy(&self.output()?).into_owned())
    }

    /// Runs it on the caller's own terminal and returns its status.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn interactive(self) -> Result<ExitStatus, CmdError> {
        let status = self.command().status();
        self.started(status)
    }

    /// Starts it with piped standard input and output, its errors going to the log or nowhere.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(self) -> Result<Running, CmdError> {
        let errors = match &self.log {
            None => Stdio::null(),
            Some(path) => {
                let log = OpenOptions::new().create(true).append(true).open(path);
                self.started(log)?.into()
            }
        };
        let child = self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).spawn();
        let child = self.started(child)?;
        Ok(Running { child, cmd: self })
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tool.program())?;
        for arg in &self.args {
            write!(f, " {}", arg.to_string_lossy())?;
        }
        if let Some(root) = &self.root {
            write!(f, " (in {})", root.path.display())?;
        }
        Ok(())
    }
}

/// A started program; killed when dropped before its end.
#[derive(Debug)]
pub struct Running {
    child: Child,
    cmd: Cmd,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it exits other than 0.
    pub fn wait(mut self) -> Result<(), CmdError> {
        drop(self.child.stdin.take());
        let status = self.child.wait();
        let status = self.cmd.started(status)?;
        let tail = self.cmd.log.as_deref().map(file_tail).unwrap_or_default();
        self.cmd.checked(status, tail)
    }

    /// Kills it and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Either fails only for a child that is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

const TAIL_BYTES: u64 = 8192;
const TAIL_LINES: usize = 20;

fn file_tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map(|text| last_lines(&text)).unwrap_or_default()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_program_arguments_status_and_what_it_said() {
        let error = Cmd::new(Tool::Bash).args(["-c", "echo so it went >&2; exit 3"]).run().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("bash -c"), "{text}");
        assert!(text.contains("exit status: 3"), "{text}");
        assert!(text.contains("so it went"), "{text}");
        assert_eq!(error.code(), "tool-failed");
    }

    #[test]
    fn a_dropped_child_is_dead() {
        let running = Cmd::new(Tool::Bash).args(["-c", "exec sleep 600"]).spawn().unwrap();
        let proc = PathBuf::from(format!("/proc/{}", running.id()));
        assert!(proc.exists());
        drop(running);
        assert!(!proc.exists());
    }
}
