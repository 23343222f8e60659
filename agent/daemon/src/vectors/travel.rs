//! What travels with a replica beside its data (invariant 10): the record of its asset, and those of the vectors that have to do
//! with it. So a box answers for an asset whose own box is gone: which it was, and where else there is a replica of it.
//!
//! Owns: the records' form, user properties of the dataset ([`Notes`]), and which of them an end is told. A vector's record is on
//! both of its ends; a target has all that its source has, and those of the vectors that go on from there. Never: takes a
//! record that it cannot read for none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use siris_zfs::{DatasetName, Datasets, Notes, ZfsError};
use uuid::Uuid;

use super::VectorId;
use super::record::{Direction, Machine, Vector};
use crate::datasets::asset::{AssetId, AssetName};

/// Bytes of the longest value of a user property that is used (zfsprops(7): 8191).
const VALUE_MAX: usize = 8000;

/// One end of a vector's: a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its device id; `None` where it has no agent.
    pub device: Option<Uuid>,
    /// Its name on the box that made the vector.
    pub name: String,
}

/// The record of a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorRecord {
    /// Its id, `UUID_N`.
    pub id: String,
    /// Where the data comes from.
    pub from: Party,
    /// The dataset there.
    pub source: String,
    /// Where it goes.
    pub to: Party,
    /// The dataset there.
    pub target: String,
    /// What the replica is for.
    pub tier: String,
    /// What a newer release has beside these.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl VectorRecord {
    /// Of a vector that the box with this device id and host name has made, with the machines that it names.
    pub fn of(vector: &Vector, device: Uuid, host: &str, machine: &Machine, from: Option<&Machine>) -> Self {
        let here = || Party { device: Some(device), name: host.to_owned() };
        let party = |machine: &Machine| Party { device: machine.device, name: machine.name.to_string() };
        let (from, to) = match (vector.direction, from) {
            (Direction::Pull, _) => (party(machine), here()),
            (Direction::Relay, Some(from)) => (party(from), party(machine)),
            _ => (here(), party(machine)),
        };
        let (source, target) = vector.ends();
        VectorRecord {
            id: vector.id(device).to_string(),
            from,
            source: source.to_owned(),
            to,
            target: target.to_owned(),
            tier: vector.tier.as_str().to_owned(),
            other: BTreeMap::new(),
        }
    }
}

/// A record that cannot be read: a newer release may have written it.
#[derive(Debug, thiserror::Error)]
#[error("the records of vectors at the dataset are not known: {text:?}")]
pub struct RecordsError {
    text: String,
    #[source]
    source: serde_json::Error,
}

/// The records of vectors, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<String, VectorRecord>);

impl Records {
    /// Those that are kept with a dataset.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn of(notes: &Notes) -> Result<Self, RecordsError> {
        let text = notes.vectors.as_deref().unwrap_or("[]");
        let all: Vec<VectorRecord> = serde_json::from_str(text)
            .map_err(|source| RecordsError { text: text.chars().take(100).collect(), source })?;
        Ok(Records(all.into_iter().map(|record| (record.id.clone(), record)).collect()))
    }

    /// The records.
    pub fn iter(&self) -> impl Iterator<Item = &VectorRecord> {
        self.0.values()
    }

    /// As a user property has them; `None` where there are none.
    fn text(&self) -> Option<String> {
        let all: Vec<&VectorRecord> = self.0.values().collect();
        // Its own types serialise.
        (!all.is_empty()).then(|| serde_json::to_string(&all).unwrap_or_default())
    }

    /// With one more, or another one in its place. Where they are too many to be kept, others go.
    fn with(mut self, own: &VectorRecord) -> Self {
        self.0.insert(own.id.clone(), own.clone());
        self.fitted(own)
    }

    fn fitted(mut self, own: &VectorRecord) -> Self {
        while self.text().is_some_and(|text| text.len() > VALUE_MAX) {
            let Some(goes) = self.0.keys().find(|id| **id != own.id).cloned() else { break };
            self.0.remove(&goes);
        }
        self
    }

    fn without(mut self, id: &VectorId) -> Option<Self> {
        self.0.remove(&id.to_string()).map(|_| self)
    }
}

/// What the two ends of a vector are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// At the source.
    pub source: Notes,
    /// At the target.
    pub target: Notes,
}

/// What both ends of a vector are to have, by what they have now.
///
/// # Errors
/// When records cannot be read: both then stay as they are.
pub fn told(own: &VectorRecord, source: &Notes, target: &Notes) -> Result<Told, RecordsError> {
    let ours = Records::of(source)?.with(own);
    // What goes on from the target is the target's to say.
    let goes_on = |record: &&VectorRecord| own.to.device.is_some() && record.from.device == own.to.device;
    let mut theirs = ours.clone();
    for record in Records::of(target)?.iter().filter(goes_on) {
        theirs.0.entry(record.id.clone()).or_insert_with(|| record.clone());
    }
    let or = |ours: &Option<String>, theirs: &Option<String>| ours.clone().or_else(|| theirs.clone());
    Ok(Told {
        source: Notes { vectors: ours.text(), ..source.clone() },
        target: Notes {
            asset_id: or(&source.asset_id, &target.asset_id),
            asset_name: or(&source.asset_name, &target.asset_name),
            vectors: theirs.fitted(own).text(),
        },
    })
}

/// Whether a vector leads to that dataset of that device, by what is kept with it. Records that cannot be read say so of none.
pub fn fills(id: &VectorId, device: Uuid, dataset: &DatasetName, notes: &Notes) -> bool {
    let leads = |record: &VectorRecord| record.to.device == Some(device) && record.target == dataset.as_str();
    Records::of(notes).is_ok_and(|records| records.0.get(&id.to_string()).is_some_and(leads))
}

/// Whether values are such as an agent writes: what else would be in the way of whoever lists datasets.
pub fn are_sound(notes: &Notes) -> bool {
    let asset_id = notes.asset_id.as_deref().is_none_or(|text| text.parse::<AssetId>().is_ok());
    let asset_name = notes.asset_name.as_deref().is_none_or(|text| text.parse::<AssetName>().is_ok());
    let vectors = notes.vectors.as_deref().is_none_or(|text| {
        text.len() <= VALUE_MAX && !text.chars().any(char::is_control) && Records::of(notes).is_ok()
    });
    asset_id && asset_name && vectors
}

/// Keeps them with a dataset.
///
/// # Errors
/// When there is no such dataset, or ZFS refuses.
pub fn keep(zfs: &dyn Datasets, dataset: &DatasetName, notes: &Notes) -> Result<(), ZfsError> {
    change(zfs, dataset, &zfs.dataset(dataset)?.map(|found| found.notes).unwrap_or_default(), notes)
}

fn change(zfs: &dyn Datasets, dataset: &DatasetName, now: &Notes, notes: &Notes) -> Result<(), ZfsError> {
    for ((name, value), (_, before)) in notes.properties().into_iter().zip(now.properties()) {
        if value != before {
            zfs.set_property(dataset, name, value)?;
        }
    }
    Ok(())
}

/// Keeps a vector's record with a dataset, beside those that are there.
///
/// # Errors
/// As [`keep`]. Records that cannot be read stay as they are.
pub fn enter(zfs: &dyn Datasets, dataset: &DatasetName, own: &VectorRecord) -> Result<(), ZfsError> {
    let now = zfs.dataset(dataset)?.map(|found| found.notes).unwrap_or_default();
    match Records::of(&now) {
        Ok(records) => change(zfs, dataset, &now, &Notes { vectors: records.with(own).text(), ..now.clone() }),
        Err(error) => {
            eprintln!("{dataset}: {error}");
            Ok(())
        }
    }
}

/// Takes a vector's record away.
///
/// # Errors
/// As [`keep`].
pub fn remove(zfs: &dyn Datasets, dataset: &DatasetName, notes: &Notes, id: &VectorId) -> Result<(), ZfsError> {
    match Records::of(notes).ok().and_then(|records| records.without(id)) {
        Some(left) => change(zfs, dataset, notes, &Notes { vectors: left.text(), ..notes.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(number: u128) -> Party {
        Party { device: Some(Uuid::from_u128(number)), name: format!("box{number}") }
    }

    fn record(number: u64, from: u128, to: u128) -> VectorRecord {
        VectorRecord {
            id: VectorId { device: Uuid::from_u128(from), number }.to_string(),
            from: party(from),
            source: "a/x".to_owned(),
            to: party(to),
            target: "b/x".to_owned(),
            tier: "primary".to_owned(),
            other: BTreeMap::new(),
        }
    }

    fn notes(records: &[&VectorRecord]) -> Notes {
        Notes { vectors: Some(serde_json::to_string(records).unwrap()), ..Notes::default() }
    }

    #[test]
    fn a_target_has_what_its_source_has_and_what_goes_on_from_it() {
        let (to_b, to_d, onward, gone) = (record(1, 1, 2), record(2, 1, 4), record(1, 2, 3), record(9, 1, 7));
        let source = Notes { asset_id: Some("7".to_owned()), ..notes(&[&to_d]) };
        let target = Notes { asset_name: Some("mail".to_owned()), ..notes(&[&gone, &onward]) };
        let told = told(&to_b, &source, &target).unwrap();
        assert_eq!(told.source, Notes { asset_id: Some("7".to_owned()), ..notes(&[&to_b, &to_d]) });
        let all = Records::of(&told.target).unwrap();
        let ids: Vec<&str> = all.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids, [to_b.id.as_str(), &to_d.id, &onward.id]);
        assert_eq!((told.target.asset_id.as_deref(), told.target.asset_name.as_deref()), (Some("7"), Some("mail")));
        // Said once, it is said for good.
        assert_eq!(super::told(&to_b, &told.source, &told.target).unwrap(), told);
    }

    #[test]
    fn what_a_newer_release_keeps_stays() {
        let own = record(1, 1, 2);
        let newer = r#"[{"id":"x","from":{"device":null,"name":"n"},"source":"s","to":{"device":null,"name":"m"},
            "target":"t","tier":"third","sealed":true}]"#;
        let kept = told(&own, &Notes { vectors: Some(newer.to_owned()), ..Notes::default() }, &Notes::default());
        assert!(kept.unwrap().target.vectors.unwrap().contains(r#""sealed":true"#));
        let unknown = Notes { vectors: Some("{}".to_owned()), ..Notes::default() };
        assert!(told(&own, &unknown, &Notes::default()).is_err());
    }

    #[test]
    fn there_are_never_more_than_a_property_holds_and_the_own_one_is_among_them() {
        let many: Vec<VectorRecord> = (1..200).map(|number| record(number, 1, 2)).collect();
        for own in [&many[0], &many[198]] {
            let told = told(own, &notes(&many.iter().collect::<Vec<_>>()), &Notes::default()).unwrap();
            assert_eq!(told.source.vectors, told.target.vectors);
            assert!(told.target.vectors.as_ref().unwrap().len() <= VALUE_MAX);
            assert!(Records::of(&told.target).unwrap().iter().any(|record| record == own));
            assert_eq!(super::told(own, &told.source, &told.target).unwrap(), told);
        }
    }

    #[test]
    fn only_what_can_be_listed_is_sound() {
        let of = |id: &str, name: &str| Notes {
            asset_id: Some(id.to_owned()),
            asset_name: Some(name.to_owned()),
            vectors: None,
        };
        assert!(are_sound(&of("123", "mail server")) && are_sound(&Notes::default()));
        for (id, name) in [("0", "x"), ("", "x"), ("1x", "x"), ("01", "x"), ("1", "-"), ("1", "a\tb"), ("1", "a\nb")] {
            assert!(!are_sound(&of(id, name)), "{id} {name:?}");
        }
        for vectors in ["x", "{}", "[]\n"] {
            assert!(!are_sound(&Notes { vectors: Some(vectors.to_owned()), ..Notes::default() }), "{vectors:?}");
        }
    }
}
