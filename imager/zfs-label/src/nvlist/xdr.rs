//! The XDR encoding: everything in units of four bytes, big-endian.

use super::{Kind, List, MAX_DEPTH, UINT64, UINT64_ARRAY, Value, text};
use crate::bytes::Cursor;
use crate::damage::NvlistError;

pub(super) fn unpack(mut cursor: Cursor) -> Result<List, NvlistError> {
    list(&mut cursor, MAX_DEPTH)
}

fn list(cursor: &mut Cursor, depth: usize) -> Result<List, NvlistError> {
    let depth = depth.checked_sub(1).ok_or(NvlistError::Depth)?;
    if cursor.u32()? != 0 {
        return Err(NvlistError::Encoding);
    }
    let _flags = cursor.u32()?;
    let mut list = List::default();
    loop {
        let before = cursor.rest();
        let encoded = cursor.u32()? as usize;
        let decoded = cursor.u32()?;
        if decoded == 0 {
            return Ok(list);
        }
        let name = string(cursor)?;
        let number = cursor.u32()?;
        let count = cursor.u32()? as usize;
        let kind = Kind::of(number)?;
        if !kind.allows(count) {
            return Err(NvlistError::Length);
        }
        let value = value(cursor, number, kind, count, depth)?;
        // ZFS goes by what it read, not by this length, and writes a wrong one for empty arrays.
        if before - cursor.rest() != encoded && count != 0 {
            return Err(NvlistError::Length);
        }
        list.insert(name, value)?;
    }
}

fn value(cursor: &mut Cursor, number: u32, kind: Kind, count: usize, depth: usize) -> Result<Value, NvlistError> {
    Ok(match kind {
        Kind::Flag => Value::Flag,
        Kind::Scalar(8) if number == UINT64 => Value::Number(cursor.u64()?),
        Kind::Scalar(size) => skip(cursor, size.max(4))?,
        Kind::Array(_) if count == 0 && number != UINT64_ARRAY => Value::Other,
        Kind::Array(_) if count == 0 => Value::Numbers(Vec::new()),
        Kind::Array(size) => {
            if cursor.u32()? as usize != count {
                return Err(NvlistError::Length);
            }
            if number == UINT64_ARRAY {
                Value::Numbers(cursor.numbers(count)?)
            } else {
                skip(cursor, count.checked_mul(size.max(4)).ok_or(NvlistError::Length)?)?
            }
        }
        Kind::Bytes => skip(cursor, padded(count)?)?,
        Kind::Text => Value::Text(string(cursor)?),
        Kind::Texts => {
            for _ in 0..count {
                string(cursor)?;
            }
            Value::Other
        }
        Kind::List => Value::List(list(cursor, depth)?),
        Kind::Lists => {
            let mut lists = Vec::new();
            for _ in 0..count {
                lists.push(list(cursor, depth)?);
            }
            Value::Lists(lists)
        }
    })
}

fn skip(cursor: &mut Cursor, bytes: usize) -> Result<Value, NvlistError> {
    cursor.take(bytes)?;
    Ok(Value::Other)
}

fn string(cursor: &mut Cursor) -> Result<String, NvlistError> {
    let bytes = cursor.u32()? as usize;
    let padded = cursor.take(padded(bytes)?)?;
    Ok(text(&padded[..bytes]))
}

fn padded(bytes: usize) -> Result<usize, NvlistError> {
    bytes.checked_next_multiple_of(4).ok_or(NvlistError::Length)
}
