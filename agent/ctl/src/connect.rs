//! The way to the agent: this machine's system bus, or another's through SSH.

use zbus::Connection;

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
            let address = ssh_address(&remote.ssh, &remote.ssh_options, host)?;
            let connected = zbus::connection::Builder::address(address.as_str()).build().await;
            connected.map_err(|e| Failure::unreachable(format!("cannot reach the bus of {host} through ssh: {e}; try `ssh {host} systemd-stdio-bridge --help`")))
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
    let fits = !destination.is_empty() && !destination.starts_with('-') && at < destination.len() && !destination.contains(char::is_whitespace);
    let port_fits = port.is_none_or(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    if fits && port_fits { Ok(Host { destination, port }) } else { Err(bad()) }
}

/// The bus address that runs `ssh -T HOST systemd-stdio-bridge`.
fn ssh_address(ssh: &str, options: &[String], host: &str) -> Result<String, Failure> {
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
    arguments.extend(["--", &destination, "systemd-stdio-bridge"]);
    let mut address = format!("unixexec:path={},argv0={}", escape(program), escape(program));
    for (at, argument) in arguments.into_iter().enumerate() {
        address += &format!(",argv{}={}", at + 1, escape(argument));
    }
    Ok(address)
}

/// Escapes a value of a bus address (D-Bus specification, "Server Addresses").
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped += &format!("%{byte:02x}");
        }
    }
    escaped
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
    fn an_argument_cannot_leave_its_place_in_the_address() {
        let address = ssh_address("ssh -F /a,b", &["ProxyCommand=x;y".into()], "root@box1:2222").unwrap();
        let expected = "unixexec:path=ssh,argv0=ssh,argv1=-F,argv2=/a%2cb,argv3=-T,argv4=-o,argv5=ProxyCommand%3dx%3by,argv6=-p,argv7=2222,argv8=--,argv9=root%40box1,argv10=systemd-stdio-bridge";
        assert_eq!(address, expected);
    }
}
