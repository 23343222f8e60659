//! Error codes of the contract.
//!
//! A code is kebab-case in texts, JSON and documentation; on the bus `config-key-unknown` is the error name
//! `org.siris.Agent1.Error.ConfigKeyUnknown`.

use std::fmt;

const PREFIX: &str = "org.siris.Agent1.Error.";

/// Who must act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The caller asked for something that cannot be.
    Input,
    /// Something the box depends on (permission, another service, a pool) has to change.
    Environment,
    /// The box itself is in trouble (disk, kernel, tool).
    Host,
    /// The agent is wrong.
    Bug,
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $class:ident, $doc:literal;)*) => {
        /// Every error code the agent answers with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode { $(#[doc = $doc] $variant,)* }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The kebab-case code.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $code,)* }
            }

            /// Who must act.
            pub fn class(self) -> Class {
                match self { $(ErrorCode::$variant => Class::$class,)* }
            }

            /// The name on the bus.
            pub fn dbus_name(self) -> &'static str {
                match self { $(ErrorCode::$variant => concat!("org.siris.Agent1.Error.", stringify!($variant)),)* }
            }
        }
    };
}

codes! {
    ConfigKeyUnknown = "config-key-unknown", Input, "No such configuration key.";
    ConfigValueInvalid = "config-value-invalid", Input, "The value does not fit the key.";
    ConfigRefused = "config-refused", Input, "The key may not be changed that way without being forced.";
    ConfigUnreadable = "config-unreadable", Host, "The configuration file on the box cannot be used.";
    ConfigWriteFailed = "config-write-failed", Host, "The configuration could not be written.";
    ReceiptAbsent = "receipt-absent", Input, "This box was not made by the installer, or its install has no receipt.";
    ReceiptUnreadable = "receipt-unreadable", Host, "The receipt cannot be read.";
    OptionUnknown = "option-unknown", Input, "No such option, or it has another type.";
    OptionInvalid = "option-invalid", Input, "An option has a value that makes no sense.";
    RebootRefused = "reboot-refused", Environment, "The box cannot be rebooted now.";
    NotAuthorized = "not-authorized", Environment, "polkit does not allow it to this caller.";
    AuthorityUnreachable = "authority-unreachable", Host, "polkit could not be asked.";
    PoolNotFound = "pool-not-found", Input, "No imported pool of that name.";
    PoolsUnreadable = "pools-unreadable", Host, "ZFS could not be asked about its pools.";
    DatasetNotFound = "dataset-not-found", Input, "No dataset of an asset by that name.";
    DatasetsUnreadable = "datasets-unreadable", Host, "ZFS could not be asked about datasets or snapshots.";
    SnapshotFailed = "snapshot-failed", Host, "No recovery point could be taken.";
    DatasetIsReplica = "dataset-is-replica", Input, "The dataset is what a vector sends into.";
    TakeOverFailed = "take-over-failed", Environment, "The dataset cannot be made the primary; the text begins with a code.";
    SetAsideFailed = "set-aside-failed", Environment, "What a target has beside could not be set aside; the text begins with a code.";
    DescribeFailed = "describe-failed", Environment, "The asset cannot be called so; the text begins with a code.";
    PointNotFound = "point-not-found", Input, "The dataset has no such snapshot.";
    PointKind = "point-kind", Input, "The snapshot is no recovery point.";
    PointNeeded = "point-needed", Environment, "Something needs the recovery point, or it is the newest; the text says all that does.";
    PointFailed = "point-failed", Host, "ZFS did not do what was asked of a recovery point or a clone.";
    HoldTag = "hold-tag", Input, "The tag is the agent's own, or none that ZFS takes.";
    HoldNotFound = "hold-not-found", Input, "The snapshot is not held by that tag.";
    CloneRefused = "clone-refused", Input, "The clone cannot be made, or the dataset not be destroyed as one; the text begins with a code.";
    NoRetention = "no-retention", Input, "The dataset has no retention policy.";
    PruneFailed = "prune-failed", Host, "Recovery points could not be pruned.";
    MachineRefused = "machine-refused", Input, "The machine, peer or key cannot be kept as given.";
    MachineNotFound = "machine-not-found", Input, "No machine or peer of that name.";
    MachineInUse = "machine-in-use", Environment, "A vector leads to the machine.";
    VectorRefused = "vector-refused", Input, "The vector cannot be kept as given.";
    VectorNotFound = "vector-not-found", Input, "No vector with that id.";
    VectorPaused = "vector-paused", Environment, "The vector is paused.";
    VectorFailed = "vector-failed", Environment, "What the vector was to do could not be done; the text begins with a code.";
    RecordsUnusable = "records-unusable", Host, "The agent's records cannot be read or written.";
    SlotsUnreadable = "slots-unreadable", Host, "The state of the slots could not be read.";
    UpgradeBusy = "upgrade-busy", Environment, "An upgrade is being installed.";
    UpgradeIdle = "upgrade-idle", Input, "No upgrade is being installed.";
    UpgradeNotStarted = "upgrade-not-started", Host, "The process that writes the slot could not be started.";
    BundleRefused = "bundle-refused", Input, "The bundle cannot be read, or is not for this box.";
    SlotRefused = "slot-refused", Input, "The slot cannot be marked that way in the state it is in.";
    SupportFailed = "support-failed", Host, "The support bundle could not be made.";
    Internal = "internal", Bug, "The agent did something it should not.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The code carried by an error reply of the agent; `None` for any other error.
pub fn code_of(error: &zbus::Error) -> Option<ErrorCode> {
    let name = error_name(error)?;
    ErrorCode::ALL.iter().copied().find(|c| c.dbus_name() == name)
}

/// What the agent said, without the error's name, where the error is a reply of the agent.
pub fn message_of(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, text, _) if name.as_str().starts_with(PREFIX) => text.clone(),
        _ => None,
    }
}

fn error_name(error: &zbus::Error) -> Option<String> {
    match error {
        zbus::Error::MethodError(name, _, _) => Some(name.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_name_is_the_code_in_camel_case() {
        for code in ErrorCode::ALL {
            let camel: String = code
                .as_str()
                .split('-')
                .map(|word| {
                    let mut letters = word.chars();
                    letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
                })
                .collect();
            assert_eq!(code.dbus_name(), format!("{PREFIX}{camel}"));
        }
    }
}
