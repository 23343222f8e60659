//! D-Bus introspection documents, compared by what they promise.
//!
//! Pure. Only what a caller depends on counts: interfaces, members, their types and access; never layout, comments
//! or the order of things.

use std::collections::BTreeSet;

/// The interfaces whose names begin with `prefix`, as one line for each interface, method, signal and property.
pub fn promises(xml: &str, prefix: &str) -> BTreeSet<String> {
    let mut promises = BTreeSet::new();
    let mut interface = String::new();
    let mut member: Option<String> = None;
    for tag in tags(xml) {
        let name = attribute(tag, "name").unwrap_or_default();
        let (kind, closed) = (tag.split_whitespace().next().unwrap_or_default(), tag.ends_with('/'));
        match kind.trim_end_matches('/') {
            "interface" => interface = if name.starts_with(prefix) { name.to_owned() } else { String::new() },
            _ if interface.is_empty() => {}
            "method" | "signal" => {
                let line = format!("{interface} {} {name}", kind.trim_end_matches('/'));
                if closed {
                    promises.insert(line);
                } else {
                    member = Some(line);
                }
            }
            "arg" => {
                if let Some(line) = &mut member {
                    let signal = line.split(' ').nth(1) == Some("signal");
                    let direction = attribute(tag, "direction").unwrap_or(if signal { "out" } else { "in" });
                    line.push_str(&format!(" {direction}:{}", attribute(tag, "type").unwrap_or_default()));
                }
            }
            "/method" | "/signal" => promises.extend(member.take()),
            "property" => {
                let (of, access) =
                    (attribute(tag, "type").unwrap_or_default(), attribute(tag, "access").unwrap_or_default());
                promises.insert(format!("{interface} property {name} {of} {access}"));
            }
            "/interface" => interface.clear(),
            _ => {}
        }
    }
    promises
}

/// What stands between `<` and `>`, comments and declarations left out.
fn tags(xml: &str) -> Vec<&str> {
    let mut tags = Vec::new();
    let mut rest = xml;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let end = if rest.starts_with("<!--") { rest.find("-->").map(|at| at + 2) } else { rest.find('>') };
        let Some(end) = end else { break };
        if !rest.starts_with("<!") && !rest.starts_with("<?") {
            tags.push(&rest[1..end]);
        }
        rest = &rest[end + 1..];
    }
    tags
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    tag[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::promises;

    #[test]
    fn layout_and_comments_do_not_count_but_types_do() {
        let a = r#"<!DOCTYPE x><node><!-- <method name="no"/> --><interface name="org.x.A">
            <method name="M"><arg name="a" type="s" direction="in"/><arg type="o" direction="out"/></method>
            <method name="N"/><property name="P" type="t" access="read"><annotation name="x" value="y"/></property>
            <signal name="S"><arg type="i"/></signal></interface>
            <interface name="org.freedesktop.DBus.Peer"><method name="Ping"></method></interface></node>"#;
        let found: Vec<String> = promises(a, "org.x.").into_iter().collect();
        let wanted =
            ["org.x.A method M in:s out:o", "org.x.A method N", "org.x.A property P t read", "org.x.A signal S out:i"];
        assert_eq!(found, wanted);
        assert_ne!(promises(a, "org.x."), promises(&a.replace("\"t\"", "\"u\""), "org.x."));
    }
}
