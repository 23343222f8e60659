//! The native encoding: the C structures of the writer, with their pointers left blank.
//!
//! A pair is one `nvpair_t` with its name and its value. Lists within a pair take their 24 bytes of `nvlist_t` there,
//! and their own pairs follow behind the pair.

use super::{Kind, List, MAX_DEPTH, UINT64, UINT64_ARRAY, Value, text};
use crate::bytes::Cursor;
use crate::damage::NvlistError;

/// Bytes of `nvpair_t` before the name.
const PAIR: usize = 16;
/// Bytes of `nvlist_t`.
const LIST: usize = 24;
/// Bytes of a pointer, whatever the writer's were.
const POINTER: usize = 8;

pub(super) fn unpack(mut cursor: Cursor) -> Result<List, NvlistError> {
    if cursor.u32()? != 0 {
        return Err(NvlistError::Encoding);
    }
    let _flags = cursor.u32()?;
    pairs(&mut cursor, MAX_DEPTH)
}

fn pairs(cursor: &mut Cursor, depth: usize) -> Result<List, NvlistError> {
    let depth = depth.checked_sub(1).ok_or(NvlistError::Depth)?;
    let mut list = List::default();
    loop {
        let size = cursor.u32()? as usize;
        if size == 0 {
            return Ok(list);
        }
        let mut pair = cursor.part(size.checked_sub(4).ok_or(NvlistError::Length)?)?;
        let name_bytes = pair.u16()? as usize;
        pair.u16()?;
        let count = pair.u32()? as usize;
        let number = pair.u32()?;
        let name = terminated(pair.take(name_bytes)?)?;
        let gap = (PAIR + name_bytes).next_multiple_of(8) - (PAIR + name_bytes);
        // A flag's pair may end with its name.
        pair.take(gap.min(pair.rest()))?;
        let kind = Kind::of(number)?;
        if !kind.allows(count) {
            return Err(NvlistError::Length);
        }
        let value = value(cursor, &mut pair, number, kind, count, depth)?;
        list.insert(name, value)?;
    }
}

fn value(
    cursor: &mut Cursor,
    pair: &mut Cursor,
    number: u32,
    kind: Kind,
    count: usize,
    depth: usize,
) -> Result<Value, NvlistError> {
    Ok(match kind {
        Kind::Flag => Value::Flag,
        Kind::Scalar(8) if number == UINT64 => Value::Number(pair.u64()?),
        Kind::Scalar(size) => skip(pair, 1, size)?,
        Kind::Array(_) if number == UINT64_ARRAY => Value::Numbers(pair.numbers(count)?),
        Kind::Array(size) => skip(pair, count, size)?,
        Kind::Bytes => skip(pair, count, 1)?,
        Kind::Text => Value::Text(terminated(pair.take(pair.rest())?)?),
        Kind::Texts => {
            skip(pair, count, POINTER)?;
            let mut texts = pair.take(pair.rest())?;
            for _ in 0..count {
                let end = texts.iter().position(|b| *b == 0).ok_or(NvlistError::Text)?;
                texts = &texts[end + 1..];
            }
            Value::Other
        }
        Kind::List => {
            embedded(pair)?;
            Value::List(pairs(cursor, depth)?)
        }
        Kind::Lists => {
            skip(pair, count, POINTER)?;
            for _ in 0..count {
                embedded(pair)?;
            }
            let mut lists = Vec::new();
            for _ in 0..count {
                lists.push(pairs(cursor, depth)?);
            }
            Value::Lists(lists)
        }
    })
}

/// Passes over the `nvlist_t` of a list within a pair.
fn embedded(pair: &mut Cursor) -> Result<(), NvlistError> {
    if pair.u32()? != 0 {
        return Err(NvlistError::Encoding);
    }
    pair.take(LIST - 4)?;
    Ok(())
}

fn skip(pair: &mut Cursor, count: usize, size: usize) -> Result<Value, NvlistError> {
    pair.take(count.checked_mul(size).ok_or(NvlistError::Length)?)?;
    Ok(Value::Other)
}

fn terminated(bytes: &[u8]) -> Result<String, NvlistError> {
    if bytes.contains(&0) { Ok(text(bytes)) } else { Err(NvlistError::Text) }
}
