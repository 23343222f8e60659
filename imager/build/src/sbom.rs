//! The package list beside an artefact, as CycloneDX 1.6 JSON (<https://cyclonedx.org/docs/1.6/json/>).

use serde_json::{Value, json};
use siris_ibu::Version;

use crate::lock::Lock;

/// Lists a lock's packages as the components of an image.
pub fn cyclonedx(product: &str, version: &Version, lock: &Lock) -> String {
    let components: Vec<Value> = lock
        .packages
        .iter()
        .map(|p| {
            let qualifiers = format!("arch={}&distro={}", p.architecture, lock.suite);
            json!({
                "type": "library",
                "name": p.name,
                "version": p.version,
                "purl": format!("pkg:deb/debian/{}@{}?{qualifiers}", p.name, p.version.replace('+', "%2B").replace(':', "%3A")),
                "hashes": [{ "alg": "SHA-256", "content": p.sha256.to_string() }],
            })
        })
        .collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": { "type": "operating-system", "name": product, "version": version.to_string() } },
        "components": components,
    });
    format!("{document:#}\n")
}
