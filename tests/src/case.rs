//! A case: a sentence that must hold, and the function that finds out.

use anyhow::Result;

use crate::lab::Bench;

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// What every change is tested with: a sample.
    Quick,
    /// Everything.
    Full,
}

impl Tier {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Quick => "quick",
            Tier::Full => "full",
        }
    }
}

/// The function of a case: fails with what does not hold.
pub type Check = Box<dyn Fn(&Bench<'_>) -> Result<()> + Send + Sync>;

/// One thing that must hold.
pub struct Case {
    /// The suite it belongs to.
    pub group: &'static str,
    /// What holds, as a sentence.
    pub name: String,
    /// The least tier that runs it.
    pub tier: Tier,
    /// Whether it must run with nothing beside it: it needs the whole machine.
    pub alone: bool,
    /// Whether it boots the installer's medium.
    pub needs_iso: bool,
    /// Finds out.
    pub check: Check,
}

impl Case {
    /// A case of the quick tier.
    pub fn quick(
        group: &'static str,
        name: impl Into<String>,
        check: impl Fn(&Bench<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Case { group, name: name.into(), tier: Tier::Quick, alone: false, needs_iso: false, check: Box::new(check) }
    }

    /// A case of the full tier.
    pub fn full(
        group: &'static str,
        name: impl Into<String>,
        check: impl Fn(&Bench<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Case { tier: Tier::Full, ..Case::quick(group, name, check) }
    }

    /// The same case in another tier.
    #[must_use]
    pub fn in_tier(self, tier: Tier) -> Self {
        Case { tier, ..self }
    }

    /// The same case, run with nothing beside it.
    #[must_use]
    pub fn alone(self) -> Self {
        Case { alone: true, ..self }
    }

    /// The same case, which boots the installer's medium.
    #[must_use]
    pub fn with_iso(self) -> Self {
        Case { needs_iso: true, ..self }
    }

    /// What it is selected and reported by.
    pub fn title(&self) -> String {
        format!("{}: {}", self.group, self.name)
    }

    /// Whether it is part of a run.
    pub fn is_selected(&self, tier: Tier, filter: Option<&str>) -> bool {
        self.tier <= tier && filter.is_none_or(|filter| self.title().to_lowercase().contains(&filter.to_lowercase()))
    }
}
