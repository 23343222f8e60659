//! Errors as the bus carries them: a code of the contract and a text.

use siris_api::ErrorCode;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

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

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Failure::new(ErrorCode::Internal, error.to_string())
    }
}
