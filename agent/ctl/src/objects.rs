//! The agent's objects, all of one kind in one call.

use std::collections::HashMap;

use siris_api::{BUS_NAME, ROOT_PATH};
use zbus::fdo::ObjectManagerProxy;
use zbus::{Connection, OwnedVariant};

use crate::failure::Failure;

/// What an object says of itself on one interface.
pub type Properties = HashMap<String, OwnedVariant>;

/// The properties of every object that has this interface.
pub async fn with_interface(connection: &Connection, interface: &str) -> Result<Vec<Properties>, Failure> {
    let objects = ObjectManagerProxy::builder(connection).destination(BUS_NAME).path(ROOT_PATH).build().await?;
    let of_kind = |interfaces: HashMap<_, Properties>| {
        interfaces.into_iter().find(|(name, _): &(zbus::names::OwnedInterfaceName, _)| name.as_str() == interface)
    };
    let all = objects.get_managed_objects().await?.into_values();
    Ok(all.filter_map(of_kind).map(|(_, properties)| properties).collect())
}

/// A property of an object, as the ObjectManager gave it.
pub fn take<T: TryFrom<OwnedVariant>>(properties: &mut Properties, key: &str) -> Result<T, Failure> {
    let value = properties.remove(key).and_then(|v| T::try_from(v).ok());
    value.ok_or_else(|| {
        Failure::unreachable(format!("the agent's object has no {key}: agent and sirisctl are of different releases"))
    })
}
