use std::io::Cursor;

use super::*;
use crate::run::{Silent, Stop, execute};
use crate::testbox::{self, TestBox};

fn talk(machine: &TestBox, lines: &[&str]) -> (Chosen, String) {
    let mut output = Vec::new();
    let typed = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
    let chosen = ask(&machine.host, &mut Cursor::new(typed), &mut output).unwrap();
    (chosen, String::from_utf8(output).unwrap())
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA0123456789 me";

#[test]
fn a_person_is_led_to_a_confirmed_plan() {
    if !testbox::has_mkfs() {
        return;
    }
    let machine = TestBox::new();
    machine.disk("sda", 12 * 1024);
    machine.disk("sdb", 64);
    machine.put("/sys/class/net/eth0/address", b"00:11:22:33:44:55\n");
    let script = [
        "sdz",
        "sda",
        "",
        "bad_name",
        "node7",
        "nonsense",
        KEY,
        "",
        "static",
        "00:11:22:33:44:55",
        "192.0.2.7/24",
        "192.0.2.1",
        "",
        "",
        "SDA",
    ];
    let (chosen, text) = talk(&machine, &script);
    let Chosen::Install(prepared) = chosen else { panic!("{text}") };
    assert_eq!(prepared.plan.targets[0].disk.as_str(), "sda");
    assert_eq!(prepared.answers.identity.hostname.as_deref(), Some("node7"));
    for wanted in
        ["Nothing is written before", "OVERWRITES /dev/sda", "a name from the table", "eth0  00:11:22:33:44:55"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 200));
    execute(&machine.host, &prepared, &mut Silent, &Stop::default()).unwrap();
}

#[test]
fn without_the_serial_number_nothing_is_confirmed() {
    let machine = TestBox::new();
    machine.disk("sda", 12 * 1024);
    let (chosen, text) = talk(&machine, &["sda", "", "", KEY, "", "", "", "sda", "q"]);
    assert!(matches!(chosen, Chosen::Nothing));
    assert!(text.contains("Not confirmed: nothing was written."), "{text}");
    let (chosen, _) = talk(&machine, &["q"]);
    assert!(matches!(chosen, Chosen::Nothing));
}

#[test]
fn what_stands_against_a_choice_is_said_and_it_starts_again() {
    let machine = TestBox::new();
    machine.disk("sda", 64);
    let (chosen, text) = talk(&machine, &["sda", "", "", KEY, "", "", "", "q"]);
    assert!(matches!(chosen, Chosen::Nothing));
    assert!(text.contains("target-too-small"), "{text}");
}
