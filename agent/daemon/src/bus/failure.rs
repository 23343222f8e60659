//! Errors as the bus carries them: a code of the contract and a text.

use siris_api::ErrorCode;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

use crate::datasets::clones::CloneError;
use crate::datasets::points::PointsError;

/// A method's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: ErrorCode,
    text: String,
}

impl Failure {
    /// A failure with what happened, why, and what to do.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }

    /// What happened, without the code.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for Failure {}

impl zbus::DBusError for Failure {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(&self.text,))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.code.dbus_name())
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

impl From<PointsError> for Failure {
    fn from(error: PointsError) -> Self {
        let code = match error {
            PointsError::Zfs(_) | PointsError::End(_) => ErrorCode::PointFailed,
            PointsError::Missing { .. } => ErrorCode::PointNotFound,
            PointsError::NoPoint(_) => ErrorCode::PointKind,
            PointsError::Tag(_) => ErrorCode::HoldTag,
            PointsError::NotHeld { .. } => ErrorCode::HoldNotFound,
            PointsError::Needed { .. } => ErrorCode::PointNeeded,
        };
        Failure::new(code, crate::chain(&error))
    }
}

impl From<CloneError> for Failure {
    fn from(error: CloneError) -> Self {
        match error {
            CloneError::Point(error) => error.into(),
            CloneError::Zfs(error) => Failure::new(ErrorCode::PointFailed, crate::chain(&error)),
            refused => Failure::new(ErrorCode::CloneRefused, format!("{}: {}", refused.code(), crate::chain(&refused))),
        }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Failure::new(ErrorCode::Internal, error.to_string())
    }
}
