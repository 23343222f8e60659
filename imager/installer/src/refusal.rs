//! Why nothing is installed: each reason with a stable code, what it is about, and what to do.

use std::fmt;

use serde::Serialize;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Refusal {
    /// Stable name.
    pub code: &'static str,
    /// What is wrong, with what.
    pub what: String,
    /// What to do about it.
    pub todo: String,
}

impl Refusal {
    /// A reason.
    pub fn new(code: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { code, what: what.into(), todo: todo.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused ({}): {}: {}", self.code, self.what, self.todo)
    }
}

/// All reasons that apply. Never empty where it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, thiserror::Error)]
#[error("{}", .0.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Refusals(pub Vec<Refusal>);

impl Refusals {
    /// Adds one.
    pub fn add(&mut self, code: &'static str, what: impl Into<String>, todo: impl Into<String>) {
        self.0.push(Refusal::new(code, what, todo));
    }

    /// `value`, unless there is a reason not to.
    ///
    /// # Errors
    /// All reasons.
    pub fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// The codes.
    pub fn codes(&self) -> Vec<&'static str> {
        self.0.iter().map(|refusal| refusal.code).collect()
    }
}
