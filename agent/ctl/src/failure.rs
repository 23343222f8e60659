//! What went wrong, for people and for scripts.

use std::fmt;
use std::process::ExitCode;

use siris_api::{Class, ErrorCode, code_of, message_of};

/// A failure: exit status, code and text.
#[derive(Debug)]
pub struct Failure {
    status: u8,
    code: String,
    text: String,
}

impl Failure {
    /// Something of this machine failed.
    pub fn local(what: &str, error: &dyn std::error::Error) -> Self {
        Failure { status: 1, code: "local".into(), text: format!("{what}: {}", chain(error)) }
    }

    /// The request cannot be met as given.
    pub fn input(text: impl Into<String>) -> Self {
        Failure { status: 2, code: "input".into(), text: text.into() }
    }

    /// The agent, or its host, does not answer.
    pub fn unreachable(text: impl Into<String>) -> Self {
        Failure { status: 4, code: "agent-unreachable".into(), text: text.into() }
    }

    /// What was waited for did not come.
    pub fn not_reached(text: impl Into<String>) -> Self {
        Failure { status: 5, code: "not-reached".into(), text: text.into() }
    }

    /// Something that the agent ran failed, with this code.
    pub fn of_agent(code: &str, text: &str) -> Self {
        Failure { status: 1, code: code.to_owned(), text: text.to_owned() }
    }

    /// The same failure, and what else is to be known of it.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }

    /// Another sirisctl, on another box, has failed and said why.
    pub fn passed_on(status: i32) -> Self {
        let text = "the box's sirisctl failed: see above".to_owned();
        Failure { status: u8::try_from(status).unwrap_or(1), code: "remote".into(), text }
    }

    /// Exit status, see [`crate::cli::Cli`].
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text, self.code)
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        if let Some(code) = code_of(&error) {
            let status = match code.class() {
                _ if code == ErrorCode::NotAuthorized => 3,
                Class::Input => 2,
                Class::Environment | Class::Host | Class::Bug => 1,
            };
            return Failure { status, code: code.to_string(), text: message_of(&error).unwrap_or_default() };
        }
        let text = chain(&error);
        let gone = ["ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "AccessDenied"];
        if gone.iter().any(|name| text.contains(name)) || matches!(error, zbus::Error::InputOutput(_)) {
            return Failure::unreachable(format!(
                "the agent does not answer ({text}): see `systemctl status siris-agent`"
            ));
        }
        Failure { status: 1, code: "bus".into(), text }
    }
}

impl From<zbus::fdo::Error> for Failure {
    fn from(error: zbus::fdo::Error) -> Self {
        Failure::from(zbus::Error::from(error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
