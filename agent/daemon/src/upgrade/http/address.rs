//! Addresses of files on a web server.

/// The address of a file that lies beside a bundle: `…/siris-0.2.0.ibu?key` and `blocks` make `…/siris-0.2.0.blocks?key`.
pub fn beside(bundle: &str, ending: &str) -> Option<String> {
    let (path, query) = bundle.split_at(bundle.find(['?', '#']).unwrap_or(bundle.len()));
    Some(format!("{}.{ending}{query}", path.strip_suffix(".ibu")?))
}

/// An address as it may be shown to anybody: without what may be a secret in it.
pub fn shown(url: &str) -> String {
    let path = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let Some((scheme, rest)) = path.split_once("://") else { return path.to_owned() };
    let (host, file) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{file}")
}
