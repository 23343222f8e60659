//! The web server that boxes fetch their upgrades from: nginx.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use siris_build::Progress;
use siris_host::cmd::{Cmd, Root, Running, Tool};

use crate::deadline;
use crate::lab::Bench;
use crate::vm::free_port;

/// nginx over one directory; killed when dropped.
pub struct Web {
    root: Root,
    dir: PathBuf,
    files: PathBuf,
    port: u16,
    secure: u16,
    running: Option<Running>,
}

/// Its certificate and key, in its directory.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// How it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Serving {
    /// Bytes a second of each connection.
    pub rate: Option<u64>,
    /// Answers every request with the whole file.
    pub no_ranges: bool,
}

impl Web {
    /// Serves `files` on the host's loopback.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(bench: &Bench<'_>, files: &Path) -> Result<Self> {
        let dir = bench.dir().join("web");
        fs::create_dir_all(dir.join("temp"))?;
        let mut root = siris_build::bmc(bench.lab.repository(), &Progress::new())?;
        for shared in bench.lab.shared()? {
            root = root.bind(&shared, &shared);
        }
        let (port, secure) = (free_port()?, free_port()?);
        let mut web = Web { root, dir, files: files.canonicalize()?, port, secure, running: None };
        web.certify()?;
        web.serve(Serving::default())?;
        Ok(web)
    }

    /// Its port on the host's loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port for https.
    pub fn secure_port(&self) -> u16 {
        self.secure
    }

    /// The certificate of [`Web::secure_port`], PEM; signed by itself, for 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn certificate(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join(CERTIFICATE))?)
    }

    /// Makes the certificate.
    fn certify(&self) -> Result<()> {
        let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=127.0.0.1 \
                       -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        let openssl = Cmd::new(Tool::Openssl).in_root(&self.root).args(request.split_whitespace());
        let (key, certificate) = (self.dir.join(KEY), self.dir.join(CERTIFICATE));
        Ok(openssl.arg("-keyout").arg(key).arg("-out").arg(certificate).log(self.dir.join("openssl.log")).run()?)
    }

    /// Bytes that it has sent so far, headers included: those of requests that are over.
    ///
    /// # Errors
    /// When its log cannot be read, or says something else.
    pub fn sent(&self) -> Result<u64> {
        let log = match fs::read_to_string(self.dir.join("access.log")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            log => log?,
        };
        let sent = |line: &str| -> Result<u64> { Ok(line.split(' ').next().unwrap_or(line).parse::<u64>()?) };
        log.lines().map(|line| sent(line).with_context(|| format!("the web server's log says `{line}`"))).sum()
    }

    /// Serves anew, in this way. What was under way is cut off.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn serve(&mut self, how: Serving) -> Result<()> {
        self.stop()?;
        let config = self.dir.join("nginx.conf");
        let (dir, files) = (self.dir.display(), self.files.display());
        let rate = how.rate.map_or_else(String::new, |rate| format!("limit_rate {rate};"));
        let ranges = if how.no_ranges { "max_ranges 0;" } else { "" };
        let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temps: String = temps.iter().map(|name| format!("{name}_temp_path {dir}/temp/{name};\n")).collect();
        fs::write(
            &config,
            format!(
                "daemon off; master_process off; user root; pid {dir}/pid; error_log {dir}/error.log;\n\
                 events {{}}\nhttp {{ log_format sent '$bytes_sent $request'; access_log {dir}/access.log sent; sendfile on; {temps}\n\
                 server {{ listen 127.0.0.1:{}; listen 127.0.0.1:{} ssl; ssl_certificate {dir}/{CERTIFICATE};\n\
                 ssl_certificate_key {dir}/{KEY}; root {files}; {rate} {ranges} }} }}\n",
                self.port, self.secure
            ),
        )?;
        let nginx = Cmd::new(Tool::Nginx).in_root(&self.root).arg("-e").arg(self.dir.join("error.log")).arg("-c");
        self.running = Some(nginx.arg(&config).log(self.dir.join("nginx.log")).spawn()?);
        deadline::until(Duration::from_secs(30), "the web server", || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", self.port)).ok())
        })?;
        Ok(())
    }

    /// Stops serving.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn stop(&mut self) -> Result<()> {
        drop(self.running.take());
        // The port is free again when nobody answers.
        deadline::until(Duration::from_secs(30), "the web server to end", || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err().then_some(()))
        })
    }
}
