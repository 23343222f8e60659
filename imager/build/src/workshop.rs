//! The Rust toolchain inside the builder, where the libraries of the target's suite are.
//!
//! Owns: where checkout, crates and intermediate results lie there, the same for all that is compiled. Never: compiles against
//! the libraries of the machine that builds.

use std::fs;
use std::path::{Path, PathBuf};

use siris_host::cmd::{Cmd, Root, Tool};

use crate::error::BuildError;
use crate::image::tools;
use crate::progress::Progress;

/// Where intermediate results are, in there.
const TARGET: &str = "/siris/target";

/// What a script begins with that compiles. The paths are the same whatever the checkout, so that the binaries are.
pub(crate) const TOOLCHAIN: &str = r#"unset LD_PRELOAD # see siris_host::cmd
export PATH=/siris/rust/bin:$PATH CARGO_HOME=/siris/cargo CARGO_TARGET_DIR=/siris/target
cd /siris/checkout"#;

/// The builder with toolchain, checkout and its crates, which are fetched where they are not there. `target` keeps the
/// compiler's intermediate results.
///
/// # Errors
/// When there is no toolchain, or the crates cannot be had.
pub(crate) fn workshop(builder: Root, checkout: &Path, target: &Path) -> Result<Root, BuildError> {
    let sysroot = Cmd::new(Tool::Rustc).args(["--print", "sysroot"]).cwd(checkout).text();
    let sysroot = sysroot.map_err(|source| BuildError::Tool { what: "asking for the Rust toolchain", source })?;
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let cargo_home = cargo_home.ok_or_else(|| BuildError::Incomplete { what: "CARGO_HOME or HOME".into() })?;
    let fetch = Cmd::new(Tool::Cargo).args(["fetch", "--locked", "--quiet"]).cwd(checkout).run();
    fetch.map_err(|source| BuildError::Tool { what: "fetching crates", source })?;
    fs::create_dir_all(target).map_err(BuildError::io("make", target))?;
    Ok(builder
        .bind(checkout, "/siris/checkout")
        .bind(target, TARGET)
        .bind(cargo_home, "/siris/cargo")
        .bind(sysroot.trim(), "/siris/rust"))
}

/// The program with the agent's unit tests, as it runs on a box: with libzfs_core, as the agent there has it.
///
/// # Errors
/// When it does not compile.
pub fn agent_tests(checkout: &Path, progress: &Progress) -> Result<PathBuf, BuildError> {
    let target = checkout.join("target/siris/cargo");
    let root = workshop(tools(checkout, progress)?, checkout, &target)?;
    let compile = format!(
        "{TOOLCHAIN}
         cargo test --offline --locked --quiet -p siris-agent --lib --no-run --features siris-agent/libzetta --message-format=json"
    );
    let said = Cmd::new(Tool::Bash).clean_env().args(["-euc", &compile]).in_root(&root).text();
    let said = said.map_err(|source| BuildError::Tool { what: "compiling the agent's unit tests", source })?;
    let made = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(|line| {
        let is_it = line["target"]["name"] == "siris_agent" && line["profile"]["test"] == true;
        line["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    let made = made.as_deref().and_then(|program| program.strip_prefix(TARGET).ok());
    let what = || "a program with the agent's unit tests: cargo names none".to_owned();
    Ok(target.join(made.ok_or_else(|| BuildError::Incomplete { what: what() })?))
}
