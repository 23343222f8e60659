//! Who may do what: root may, anybody else if polkit says so.

use std::collections::HashMap;

use siris_api::ErrorCode;
use zbus::Connection;
use zbus::message::{Flags, Header};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject};

use crate::bus::Failure;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// polkit. Root is not asked about: it is allowed before polkit is up, and polkit would allow it too.
    Polkit,
    /// Nobody: every change is allowed, or none is. For tests, where the bus has no polkit.
    Fixed(bool),
}

impl Authority {
    /// Whether the caller may do `action`.
    ///
    /// # Errors
    /// When it may not, or when that cannot be found out.
    pub async fn check(self, connection: &Connection, call: &Header<'_>, action: &str) -> Result<(), Failure> {
        let allowed = match self {
            Authority::Fixed(allowed) => allowed,
            Authority::Polkit => is_root(connection, call).await? || polkit_allows(connection, call, action).await?,
        };
        if allowed {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::NotAuthorized,
            format!("polkit does not allow you {action}: run it as root, or as a member of group siris"),
        ))
    }
}

async fn is_root(connection: &Connection, call: &Header<'_>) -> Result<bool, Failure> {
    let Some(sender) = call.sender() else { return Ok(false) };
    let bus = zbus::fdo::DBusProxy::new(connection).await?;
    let uid = bus.get_connection_unix_user(sender.to_owned().into()).await;
    Ok(uid.map_err(|e| Failure::new(ErrorCode::NotAuthorized, e.to_string()))? == 0)
}

async fn polkit_allows(connection: &Connection, call: &Header<'_>, action: &str) -> Result<bool, Failure> {
    let unreachable = |e: &dyn std::error::Error| {
        Failure::new(
            ErrorCode::AuthorityUnreachable,
            format!("polkit does not answer: {e}; see `systemctl status polkit`"),
        )
    };
    let subject = Subject::new_for_message_header(call).map_err(|e| unreachable(&e))?;
    let mut flags = CheckAuthorizationFlags::empty();
    if call.primary().flags().contains(Flags::ALLOW_INTERACTIVE_AUTH) {
        flags |= CheckAuthorizationFlags::ALLOW_USER_INTERACTION;
    }
    let polkit = AuthorityProxy::new(connection).await.map_err(|e| unreachable(&e))?;
    let result =
        polkit.check_authorization(&subject, action, &HashMap::new(), flags, "").await.map_err(|e| unreachable(&e))?;
    Ok(result.is_authorized)
}
