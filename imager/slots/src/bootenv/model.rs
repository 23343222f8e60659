//! What the boot script decides, as a pure function: the script and this are two texts of one rule, and tests of
//! the whole compare them by booting.

use crate::bootenv::{BootEnv, Record};
use crate::slot::{Slot, SlotState, Tries};

/// Why a slot is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// Its state is neither good nor trial.
    State(SlotState),
    /// It has no tries left.
    NoTries,
    /// Kernel or initrd are not what the hash list of its boot partition says.
    BadFiles,
    /// The try could not be saved, and it is a trial: booted without counting, it could be booted for ever.
    SaveFailed,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel of this slot is loaded.
    Boot(Slot),
    /// Nothing can be booted: say why, and stay there until the next power-on.
    Halt,
}

/// A decision of the boot script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootDecision {
    /// What happens next.
    pub outcome: Outcome,
    /// The slots passed over before, in order.
    pub skipped: Vec<(Slot, Skip)>,
    /// What the environment block on disk holds afterwards.
    pub env: BootEnv,
}

/// Decides as the boot script does: candidates in order, a try spent and saved before the kernel is loaded; when none
/// is left, good slots get their tries back for the next power-on. `checks_ok` says whether the files of a slot are
/// as its hash list says, `save_ok` whether the block can be written.
pub fn decide(env: &BootEnv, checks_ok: impl Fn(Slot) -> bool, save_ok: bool) -> BootDecision {
    let mut skipped = Vec::new();
    for slot in env.order {
        let Record { state, tries } = env.record(slot);
        let skip = match (state, tries.spend()) {
            (SlotState::Empty | SlotState::Bad, _) => Skip::State(state),
            (_, None) => Skip::NoTries,
            _ if !checks_ok(slot) => Skip::BadFiles,
            (SlotState::Trial, _) if !save_ok => Skip::SaveFailed,
            (_, Some(tries)) => {
                let mut after = env.clone();
                if save_ok {
                    after.record_mut(slot).tries = tries;
                    after.last = Some(slot);
                }
                return BootDecision { outcome: Outcome::Boot(slot), skipped, env: after };
            }
        };
        skipped.push((slot, skip));
    }
    let mut after = env.clone();
    if save_ok {
        for slot in Slot::ALL {
            if after.record(slot).state == SlotState::Good {
                after.record_mut(slot).tries = Tries::FULL;
            }
        }
        after.halted = Some("no-slot".to_owned());
    }
    BootDecision { outcome: Outcome::Halt, skipped, env: after }
}
