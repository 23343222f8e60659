//! The way to the agent: this machine's system bus, or another's through SSH.

use std::ffi::OsString;
use std::path::PathBuf;

use zbus::address::transport::{Transport, Unixexec};
use zbus::{Address, Connection};

use crate::cli::Remote;
use crate::failure::Failure;

/// Connects to the bus the agent is on.
pub async fn connect(remote: &Remote) -> Result<Connection, Failure> {
    match &remote.host {
        None => {
            let connected = zbus::connection::Builder::system().build().await;
            connected.map_err(|e| Failure::unreachable(format!("cannot reach the system bus: {e}")))
        }
        Some(host) => {
            let address = Address::from(Transport::Unixexec(ssh_transport(&remote.ssh, &remote.ssh_options, host)?));
            let connected = zbus::connection::Builder::address(address).build().await;
            connected.map_err(|e| {
                Failure::unreachable(format!(
                    "cannot reach the bus of {host} through ssh: {e}; try `ssh {host} systemd-stdio-bridge --help`"
                ))
            })
        }
    }
}

struct Host<'a> {
    destination: &'a str,
    port: Option<&'a str>,
}

/// Splits `[user@]host[:port]`; an IPv6 address with a port is in brackets.
fn split_host(text: &str) -> Result<Host<'_>, Failure> {
    let bad = || Failure::input(format!("\"{text}\" is no host: give [user@]host[:port], an IPv6 address in brackets"));
    let at = text.rfind('@').map_or(0, |at| at + 1);
    let (destination, port) = match text[at..].strip_prefix('[') {
        Some(rest) => {
            let (_, after) = rest.split_once(']').ok_or_else(bad)?;
            let end = text.len() - after.len();
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or_else(bad)?) };
            (&text[..end], port)
        }
        None => match text[at..].split_once(':') {
            // More than one colon: an address without brackets, and so without a port.
            Some((_, port)) if !port.contains(':') => (&text[..text.len() - port.len() - 1], Some(port)),
            _ => (text, None),
        },
    };
    let fits = !destination.is_empty()
        && !destination.starts_with('-')
        && at < destination.len()
        && !destination.contains(char::is_whitespace);
    let port_fits = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    if fits && port_fits { Ok(Host { destination, port }) } else { Err(bad()) }
}

/// The transport that runs `ssh -T HOST systemd-stdio-bridge`. Made of its parts, not parsed: an address as text would
/// have to escape them, and the library leaves such escapes in.
fn ssh_transport(ssh: &str, options: &[String], host: &str) -> Result<Unixexec, Failure> {
    let (program, arguments) = ssh_command(ssh, options, host, &["systemd-stdio-bridge"])?;
    Ok(Unixexec::new(program, None, arguments))
}

/// The program and its arguments that run `command` on the host.
pub fn ssh_command(
    ssh: &str,
    options: &[String],
    host: &str,
    command: &[&str],
) -> Result<(PathBuf, Vec<OsString>), Failure> {
    let Host { destination, port } = split_host(host)?;
    let mut words = ssh.split_ascii_whitespace();
    let program = words.next().ok_or_else(|| Failure::input("the ssh command is empty: unset SIRIS_SSH"))?;
    let mut arguments: Vec<&str> = words.collect();
    arguments.push("-T");
    for option in options {
        arguments.extend(["-o", option]);
    }
    if let Some(port) = port {
        arguments.extend(["-p", port]);
    }
    // ssh takes the address of a destination without the brackets.
    let destination = destination.replace(['[', ']'], "");
    arguments.extend(["--", &destination]);
    arguments.extend(command);
    Ok((PathBuf::from(program), arguments.into_iter().map(OsString::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Option<(String, Option<String>)> {
        split_host(text).ok().map(|h| (h.destination.to_owned(), h.port.map(str::to_owned)))
    }

    #[test]
    fn hosts_are_split_into_destination_and_port() {
        let some = |d: &str, p: Option<&str>| Some((d.to_owned(), p.map(str::to_owned)));
        assert_eq!(split("box1"), some("box1", None));
        assert_eq!(split("root@box1:2222"), some("root@box1", Some("2222")));
        assert_eq!(split("root@[fd00::1]:22"), some("root@[fd00::1]", Some("22")));
        assert_eq!(split("fd00::1"), some("fd00::1", None));
        for bad in ["", "-oProxyCommand=x", "root@", "box1:", "box1:0", "box1:x", "[fd00::1", "a b"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_argument_stays_one_argument() {
        let transport = ssh_transport("ssh -F /a,b", &["ProxyCommand=x; y".into()], "root@[fd00::1]:2222").unwrap();
        let expected =
            ["-F", "/a,b", "-T", "-o", "ProxyCommand=x; y", "-p", "2222", "--", "root@fd00::1", "systemd-stdio-bridge"];
        assert_eq!(transport.args(), expected);
    }
}
