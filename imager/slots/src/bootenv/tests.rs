use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, prop_assert, prop_assert_eq, proptest};

use super::*;

fn text(block: &[u8]) -> String {
    String::from_utf8(block.to_vec()).unwrap().trim_end_matches('#').to_owned()
}

fn block(lines: &str) -> Vec<u8> {
    let mut block = format!("{SIGNATURE}{lines}").into_bytes();
    block.resize(BLOCK, b'#');
    block
}

#[test]
fn a_first_environment_is_this_text() {
    let block = BootEnv::first(Slot::A).to_block().unwrap();
    assert_eq!(
        text(&block),
        "# GRUB Environment Block\norder=a b\na_state=good\na_tries=3\nb_state=empty\nb_tries=0\n"
    );
    assert_eq!(BootEnv::parse(&block).unwrap(), BootEnv::first(Slot::A));
}

#[test]
fn what_others_left_is_kept() {
    let bytes = block("# a comment\na_state=good\na_tries=1\nlast=a\nodd=one\\\\two\\\nthree\nprev=\nhalted=why\n");
    let env = BootEnv::parse(&bytes).unwrap();
    assert_eq!(env.record(Slot::A), Record { state: SlotState::Good, tries: "1".parse().unwrap() });
    assert_eq!(env.record(Slot::B).state, SlotState::Empty);
    assert_eq!((env.last(), env.halted()), (Some(Slot::A), Some("why")));
    assert_eq!(env.others, [("odd".into(), "one\\two\nthree".into()), ("prev".into(), String::new())]);
    assert_eq!(BootEnv::parse(&env.to_block().unwrap()).unwrap(), env);
}

#[test]
fn an_empty_block_of_grubs_boots_nothing() {
    let env = BootEnv::parse(&block("")).unwrap();
    assert_eq!(decide(&env, |_| true, true).outcome, Outcome::Halt);
}

#[test]
fn what_cannot_be_read_is_refused() {
    assert_eq!(BootEnv::parse(&[b'#'; BLOCK]), Err(BootEnvError::Signature));
    assert_eq!(BootEnv::parse(&[b'#'; 512]), Err(BootEnvError::Size(512)));
    assert_eq!(BootEnv::parse(&block("order=a b\nnonsense\n")), Err(BootEnvError::Line(3)));
    for bad in ["order=a", "order=a a", "order=c a", "a_state=fine", "b_tries=4", "b_tries=-1", "last=c"] {
        assert_eq!(BootEnv::parse(&block(bad)).unwrap_err().code(), "bootenv-unreadable", "{bad}");
    }
}

#[test]
fn variables_stay_in_the_first_sector() {
    let mut env = BootEnv::first(Slot::A);
    env.others.push(("name".into(), "x".repeat(400)));
    assert!(env.to_block().is_ok());
    env.others[0].1 += &"x".repeat(200);
    assert_eq!(env.to_block().unwrap_err().code(), "bootenv-full");
    // Read from a block that reaches further, all the same.
    assert!(BootEnv::parse(&block(&format!("name={}\n", "x".repeat(600)))).is_ok());
}

#[test]
fn the_last_good_slot_cannot_be_given_up() {
    let mut env = BootEnv::first(Slot::A);
    assert_eq!(env.mark_bad(Slot::A).unwrap_err().code(), "slot-transition");
    env.arm(Slot::B).unwrap();
    assert!(env.mark_bad(Slot::A).is_err(), "a trial is no good slot yet");
    assert_eq!(env.order(), [Slot::B, Slot::A]);
    assert!(env.bless(Slot::B).unwrap());
    assert!(!env.bless(Slot::B).unwrap(), "nothing to write the second time");
    env.mark_bad(Slot::A).unwrap();
    assert!(env.bless(Slot::A).is_err() && env.prefer(Slot::A).is_err() && env.arm(Slot::A).is_err());
    env.clear(Slot::A);
    env.arm(Slot::A).unwrap();
    assert_eq!(env.order(), [Slot::A, Slot::B]);
}

#[test]
fn three_power_flaps_leave_a_one_slot_box_bootable() {
    let mut env = BootEnv::first(Slot::A);
    for _ in 0..3 {
        let decision = decide(&env, |_| true, true);
        assert_eq!(decision.outcome, Outcome::Boot(Slot::A));
        env = decision.env;
    }
    let decision = decide(&env, |_| true, true);
    assert_eq!(decision.outcome, Outcome::Halt);
    assert_eq!(decision.skipped, [(Slot::A, Skip::NoTries), (Slot::B, Skip::State(SlotState::Empty))]);
    assert_eq!(decide(&decision.env, |_| true, true).outcome, Outcome::Boot(Slot::A));
}

#[test]
fn a_trial_that_never_gets_healthy_is_tried_three_times() {
    let mut env = BootEnv::first(Slot::A);
    env.arm(Slot::B).unwrap();
    let mut booted = Vec::new();
    for _ in 0..5 {
        let decision = decide(&env, |_| true, true);
        env = decision.env;
        booted.push(decision.outcome);
        if decision.outcome == Outcome::Boot(Slot::A) {
            env.bless(Slot::A).unwrap();
        }
    }
    let (a, b) = (Outcome::Boot(Slot::A), Outcome::Boot(Slot::B));
    assert_eq!(booted, [b, b, b, a, a]);
}

/// What happens to a box between two boots.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Power is lost before health; or the OS never gets there.
    Flap,
    /// The booted OS is healthy.
    Healthy,
    /// The booted OS, once healthy, writes the other slot and arms it.
    Upgrade,
    /// The booted OS is asked to mark the other slot.
    MarkOtherBad,
    /// Files of a slot break, or are whole again.
    Files(Slot, bool),
    /// The block can or cannot be written by the boot loader.
    Save(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let slot = || prop_oneof![proptest::strategy::Just(Slot::A), proptest::strategy::Just(Slot::B)];
    let event = prop_oneof![
        4 => proptest::strategy::Just(Event::Flap),
        3 => proptest::strategy::Just(Event::Healthy),
        2 => proptest::strategy::Just(Event::Upgrade),
        1 => proptest::strategy::Just(Event::MarkOtherBad),
        1 => (slot(), any::<bool>()).prop_map(|(slot, ok)| Event::Files(slot, ok)),
        1 => any::<bool>().prop_map(Event::Save),
    ];
    collection::vec(event, 1..60)
}

/// Every state the disk can be in after a write that was torn between its two sectors.
fn check_torn(old: &BootEnv, new: &BootEnv) {
    let (old, new) = (old.to_block().unwrap(), new.to_block().unwrap());
    let mixed = [[&old[..SECTOR], &new[SECTOR..]].concat(), [&new[..SECTOR], &old[SECTOR..]].concat()];
    for torn in mixed {
        assert!(torn == old || torn == new);
    }
}

proptest! {
    #[test]
    fn a_box_with_a_whole_good_slot_always_comes_back(events in events()) {
        let mut env = BootEnv::first(Slot::A);
        let (mut files_ok, mut save_ok) = ([true; 2], true);
        let mut uncommitted_boots = [0; 2];
        for event in events {
            match event {
                Event::Files(slot, ok) => files_ok[slot as usize] = ok,
                Event::Save(ok) => save_ok = ok,
                _ => {}
            }
            let decision = decide(&env, |slot| files_ok[slot as usize], save_ok);
            check_torn(&env, &decision.env);
            env = decision.env;

            if let Outcome::Boot(slot) = decision.outcome {
                prop_assert!(files_ok[slot as usize], "booted broken files");
                if env.record(slot).state == SlotState::Trial {
                    uncommitted_boots[slot as usize] += 1;
                    prop_assert!(uncommitted_boots[slot as usize] <= 3, "a trial outlived its tries");
                }
                let before = env.clone();
                let healthy = matches!(event, Event::Healthy | Event::Upgrade | Event::MarkOtherBad);
                if healthy && env.bless(slot).is_ok() {
                    uncommitted_boots[slot as usize] = 0;
                }
                match event {
                    Event::Upgrade => {
                        let mid = env.clone();
                        env.clear(slot.other());
                        check_torn(&mid, &env);
                        files_ok[slot.other() as usize] = true;
                        uncommitted_boots[slot.other() as usize] = 0;
                        env.arm(slot.other()).unwrap();
                    }
                    Event::MarkOtherBad => drop(env.mark_bad(slot.other())),
                    _ => {}
                }
                check_torn(&before, &env);
            }
            prop_assert_eq!(BootEnv::parse(&env.to_block().unwrap()).unwrap(), env.clone());

            // From here, with nothing but power-ons: a good slot whose files are whole boots within a few.
            let whole = |slot: Slot| env.record(slot).state == SlotState::Good && files_ok[slot as usize];
            if Slot::ALL.into_iter().any(whole) && save_ok {
                let mut later = env.clone();
                let back = (0..8).any(|_| {
                    let decision = decide(&later, |slot| files_ok[slot as usize], save_ok);
                    later = decision.env;
                    matches!(decision.outcome, Outcome::Boot(slot) if whole(slot))
                });
                prop_assert!(back, "a good slot was never booted again: {:?}", env);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in collection::vec(any::<u8>(), BLOCK - SIGNATURE.len())) {
        let mut block = SIGNATURE.as_bytes().to_vec();
        block.extend(bytes);
        let _ = BootEnv::parse(&block);
    }
}

#[test]
fn variables_of_others_are_kept_and_fit_the_sector() {
    let mut env = BootEnv::first(Slot::A);
    env.set_other("install", &"i".repeat(40));
    env.set_other("medium_of", &"m".repeat(16));
    env.to_block().unwrap();
    env.set_other("install", "0123-abcd");
    let mut read = BootEnv::parse(&env.to_block().unwrap()).unwrap();
    assert_eq!(read.other("install"), Some("0123-abcd"));
    read.bless(Slot::A).unwrap();
    assert_eq!(BootEnv::parse(&read.to_block().unwrap()).unwrap().other("install"), Some("0123-abcd"));
    env.set_other("install", &"i".repeat(512));
    assert_eq!(env.to_block().unwrap_err().code(), "bootenv-full");
}
