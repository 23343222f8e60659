use super::*;
use crate::testbox::TestBox;

fn evidence_of(machine: &TestBox) -> Vec<Evidence> {
    all(&machine.host, &observe::observe(&machine.host).unwrap(), &|_| true).unwrap()
}

#[test]
fn each_way_of_not_being_the_same_fails() {
    type Change = fn(&TestBox);
    let cases: [(&str, Change); 8] = [
        ("is gone", |m| std::fs::remove_dir_all(m.path("/sys/block/sda")).unwrap()),
        ("came back", |m| m.put("/sys/block/sda/diskseq", b"12345\n")),
        ("another disk", |m| m.put("/sys/block/sda/serial", b"OTHER\n")),
        ("first or last MiB", |m| write(m, 0)),
        ("first or last MiB", |m| write(m, (64 << 20) - 1)),
        ("was written to", |m| m.stat("sda", 8, 0)),
        ("discarded", |m| m.stat("sda", 0, 8)),
        ("not read-only", |m| m.put("/sys/block/sda/ro", b"0\n")),
    ];
    for (wanted, change) in cases {
        let machine = TestBox::new();
        machine.disk("sda", 64);
        machine.disk("sdb", 64);
        let before = evidence_of(&machine);
        assert!(compare(&before, &evidence_of(&machine), true).holds);
        change(&machine);
        let proof = compare(&before, &evidence_of(&machine), true);
        assert!(!proof.holds && proof.failures.iter().any(|failure| failure.contains(wanted)), "{wanted}: {proof:?}");
    }
}

fn write(machine: &TestBox, at: u64) {
    let mut dev = std::fs::File::options().write(true).open(machine.path("/dev/sda")).unwrap();
    dev.seek(SeekFrom::Start(at)).unwrap();
    std::io::Write::write_all(&mut dev, b"x").unwrap();
}

#[test]
fn a_disk_that_came_meanwhile_is_told_apart_and_must_be_fenced() {
    let machine = TestBox::new();
    machine.disk("sda", 64);
    let before = evidence_of(&machine);
    machine.disk("sdb", 64);
    let proof = compare(&before, &evidence_of(&machine), true);
    assert!(proof.holds);
    assert_eq!((proof.disks.len(), proof.appeared.len()), (1, 1));
    machine.stat("sdb", 8, 0);
    assert!(!compare(&before, &evidence_of(&machine), true).holds);
}
