//! What a running agent says of its interfaces is what `agent/api/xml` says of them.

mod private_bus;

use std::collections::HashMap;

use private_bus::{Machine, repository};
use siris_agent::bus::Authority;
use siris_api::{BUS_NAME, REPLICATION_PATH, ROOT_PATH, ReplicationProxy, UPGRADE_PATH, dataset_path, pool_path};
use siris_zfs::Datasets;
use zbus::fdo::IntrospectableProxy;

/// Without comments and blanks between elements: what is left is the interface.
fn bare(xml: &str) -> String {
    let mut text = xml.to_owned();
    while let Some(begin) = text.find("<!--") {
        let end = text[begin..].find("-->").map_or(text.len(), |at| begin + at + 3);
        text.replace_range(begin..end, "");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("> <", ">\n<")
}

fn interface<'a>(xml: &'a str, name: &str) -> &'a str {
    let begin = xml.find(&format!("<interface name=\"{name}\">")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    let end = xml[begin..].find("</interface>").map(|at| begin + at + "</interface>".len());
    &xml[begin..end.unwrap()]
}

#[tokio::test]
async fn the_xml_files_say_what_the_agent_serves() {
    let Some(builder) = Machine::prepare() else { return };
    let guid = builder.zfs.create(42, "tank").as_u64();
    let dataset = "tank/home/agents/0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55".parse().unwrap();
    builder.zfs.sets.create(&dataset).unwrap();
    let dataset = builder.zfs.sets.dataset(&dataset).unwrap().unwrap().guid.as_u64();
    let agent = builder.boot(Authority::Fixed(true)).await;
    let replication = ReplicationProxy::new(&agent.client).await.unwrap();
    let machine = HashMap::from([
        ("kind", "device".into()),
        ("host", "box.example".into()),
        ("host-key", "ssh-ed25519 AAAAC3Nz".into()),
        ("device", "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55".into()),
        ("prefix", "tank/home/agents".into()),
    ]);
    replication.add_machine("vault", machine).await.unwrap();
    let vector = HashMap::from([
        ("dataset", "0b2c7f3e-8a44-4f0e-9c57-1f1f2b1a6d55".into()),
        ("machine", "vault".into()),
        ("direction", "pull".into()),
    ]);
    let vector = replication.add_vector(vector).await.unwrap();
    let objects = [
        ("org.siris.Agent1.Replication", REPLICATION_PATH.to_owned()),
        ("org.siris.Agent1.Vector", vector.to_string()),
        ("org.siris.Agent1.Manager", ROOT_PATH.to_owned()),
        ("org.siris.Agent1.Upgrade", UPGRADE_PATH.to_owned()),
        ("org.siris.Agent1.Pool", pool_path(guid)),
        ("org.siris.Agent1.Dataset", dataset_path(dataset)),
    ];
    for (name, path) in objects {
        let proxy = IntrospectableProxy::builder(&agent.client).destination(BUS_NAME).path(path).build().await.unwrap();
        let live = proxy.introspect().await.unwrap();
        let live = bare(interface(&live, name));
        let file = repository(&format!("agent/api/xml/{name}.xml"));
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        if std::env::var_os("SIRIS_PRINT_XML").is_some() {
            eprintln!("{live}");
            continue;
        }
        assert_eq!(live, bare(interface(&written, name)), "the agent and {} differ", file.display());
    }
}

#[tokio::test]
async fn the_root_object_is_an_object_manager() {
    let Some(builder) = Machine::prepare() else { return };
    let agent = builder.boot(Authority::Fixed(true)).await;
    let proxy =
        IntrospectableProxy::builder(&agent.client).destination(BUS_NAME).path(ROOT_PATH).build().await.unwrap();
    assert!(proxy.introspect().await.unwrap().contains("org.freedesktop.DBus.ObjectManager"));
}
