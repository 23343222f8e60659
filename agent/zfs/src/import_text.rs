//! Parser of `zpool import` without arguments, which has no JSON form in OpenZFS 2.3.
//!
//! Shape: blocks of `pool:`, `id:`, `state:` lines, followed by `status:`, `action:`, `config:` and a vdev tree that
//! this parser has no use for (zpool-import(8)).

use crate::types::{ImportablePool, NameError, PoolGuid, PoolName, PoolState};

/// What is wrong with the text.
#[derive(Debug, thiserror::Error)]
pub enum ImportTextError {
    /// A block ended, or another began, before it was whole.
    #[error("the block of pool \"{0}\" has no {1}")]
    Incomplete(String, &'static str),
    /// A line that belongs to no block.
    #[error("line out of place: \"{0}\"")]
    OutOfPlace(String),
    /// A pool name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A guid or state that cannot be read.
    #[error("pool \"{0}\": cannot read \"{1}\"")]
    Value(String, String),
}

#[derive(Default)]
struct Block {
    name: String,
    guid: Option<PoolGuid>,
    state: Option<PoolState>,
}

impl Block {
    fn finish(self) -> Result<ImportablePool, ImportTextError> {
        let guid = self.guid.ok_or_else(|| ImportTextError::Incomplete(self.name.clone(), "id"))?;
        let state = self.state.ok_or_else(|| ImportTextError::Incomplete(self.name.clone(), "state"))?;
        let name: PoolName = self.name.parse()?;
        Ok(ImportablePool { guid, name, state })
    }
}

/// Parses what `zpool import` prints; no output means no pools.
pub(crate) fn parse(text: &str) -> Result<Vec<ImportablePool>, ImportTextError> {
    let mut pools = Vec::new();
    let mut block: Option<Block> = None;
    for line in text.lines() {
        let Some((key, value)) = line.trim_start().split_once(':') else { continue };
        let value = value.trim();
        match key {
            "pool" => {
                if let Some(done) = block.take() {
                    pools.push(done.finish()?);
                }
                block = Some(Block { name: value.to_owned(), ..Block::default() });
            }
            "id" | "state" => {
                let Some(block) = block.as_mut() else { return Err(ImportTextError::OutOfPlace(line.to_owned())) };
                let unreadable = || ImportTextError::Value(block.name.clone(), value.to_owned());
                if key == "id" {
                    block.guid = Some(value.parse().map_err(|_| unreadable())?);
                } else {
                    // A destroyed pool reads "ONLINE (DESTROYED)"; it is listed only when asked for.
                    block.state = Some(value.parse().map_err(|_| unreadable())?);
                }
            }
            _ => {}
        }
    }
    if let Some(done) = block {
        pools.push(done.finish()?);
    }
    Ok(pools)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = include_str!("../fixtures/import.txt");

    #[test]
    fn reads_each_block() {
        let pools = parse(TWO).unwrap();
        assert_eq!(pools.len(), 2);
        assert_eq!(pools[0].name.as_str(), "old");
        assert_eq!(pools[0].state, PoolState::Online);
        assert_eq!(pools[1].guid.as_u64(), 12_261_162_642_180_690_256);
        assert_eq!(pools[1].state, PoolState::Degraded);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_block_without_an_id_is_an_error() {
        let text = TWO.replace("    id: 4337382458165311653\n", "");
        assert!(matches!(parse(&text), Err(ImportTextError::Incomplete(name, "id")) if name == "old"));
    }

    #[test]
    fn an_unknown_state_is_an_error() {
        assert!(parse(&TWO.replace("state: ONLINE\n", "state: SIDEWAYS\n")).is_err());
    }
}
