//! Options of a method call, `a{sv}`: one that is not known is refused, never ignored.

use std::collections::HashMap;

use siris_api::ErrorCode;
use zbus::OwnedVariant;

use crate::bus::Failure;

/// As they come.
pub(super) type Options = HashMap<String, OwnedVariant>;

/// Refuses options that are not among those known.
pub(super) fn only(options: &Options, known: &[&str]) -> Result<(), Failure> {
    match options.keys().find(|k| !known.contains(&k.as_str())) {
        None => Ok(()),
        Some(unknown) => Err(Failure::new(ErrorCode::OptionUnknown, format!("no option \"{unknown}\" here"))),
    }
}

/// A boolean; false where it is not given.
pub(super) fn flag(options: &Options, name: &str) -> Result<bool, Failure> {
    let Some(value) = options.get(name) else { return Ok(false) };
    bool::try_from(value.clone())
        .map_err(|_| Failure::new(ErrorCode::OptionUnknown, format!("option \"{name}\" is a boolean")))
}

/// A number; `None` where it is not given.
pub(super) fn number(options: &Options, name: &str) -> Result<Option<u32>, Failure> {
    let Some(value) = options.get(name) else { return Ok(None) };
    let number = u32::try_from(value.clone());
    number.map(Some).map_err(|_| {
        Failure::new(ErrorCode::OptionUnknown, format!("option \"{name}\" is a number of 32 bits, unsigned"))
    })
}

/// A large number; `None` where it is not given.
pub(super) fn large(options: &Options, name: &str) -> Result<Option<u64>, Failure> {
    let Some(value) = options.get(name) else { return Ok(None) };
    let number = u64::try_from(value.clone());
    number.map(Some).map_err(|_| {
        Failure::new(ErrorCode::OptionUnknown, format!("option \"{name}\" is a number of 64 bits, unsigned"))
    })
}

/// A text; `None` where it is not given.
pub(super) fn text(options: &Options, name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = options.get(name) else { return Ok(None) };
    let text = String::try_from(value.clone());
    text.map(Some).map_err(|_| Failure::new(ErrorCode::OptionUnknown, format!("option \"{name}\" is a text")))
}
