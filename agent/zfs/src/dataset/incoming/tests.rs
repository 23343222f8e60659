use std::sync::Mutex;

use super::super::record::{BEGIN, MAGIC};
use super::*;

/// A record of a kind, a header where `version` says what it leads in.
fn record(kind: u32, payload: u32, version: u64, name: &str) -> Vec<u8> {
    let mut bytes = [kind.to_ne_bytes(), payload.to_ne_bytes()].concat();
    for number in [MAGIC, version, 1_568_402_268, u64::from(FILE_SYSTEM), 7, 6] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(name.as_bytes());
    bytes.resize(RECORD, 0);
    bytes
}

fn end() -> Vec<u8> {
    record(END, 0, 0, "")
}

/// A snapshot's stream: a header, something, an end.
fn one(name: &str) -> Vec<u8> {
    [record(BEGIN, 0, ONE, name), vec![3; 100], end()].concat()
}

fn package(streams: &[Vec<u8>]) -> Vec<u8> {
    [record(BEGIN, 0, PACKAGE, "tank/a@3"), end(), streams.concat(), end()].concat()
}

/// Receives as the kernel does: reads to the end of the snapshot's stream. Gives what came, and how it ended.
fn received(mut stream: &[u8]) -> (Vec<String>, Result<(), ZfsError>) {
    let came = Mutex::new(Vec::new());
    let take = |name: &SnapshotName, _: &Header, mut pipe: &PipeReader| {
        let mut rest = [0; 100 + RECORD];
        pipe.read_exact(&mut rest).map_err(|_| TRUNCATED)?;
        assert_eq!(rest[100..], end());
        came.lock().unwrap().push(name.to_string());
        Ok(())
    };
    let ended = receive(&"vault/b".parse().unwrap(), &mut stream, &take);
    (came.into_inner().unwrap(), ended)
}

fn why(ended: Result<(), ZfsError>) -> Refusal {
    match ended.unwrap_err() {
        ZfsError::NotReceived { why, .. } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn each_snapshot_of_a_stream_is_taken_by_its_own_name() {
    let (came, ended) = received(&one("tank/a@1568402268"));
    ended.unwrap();
    assert_eq!(came, ["vault/b@1568402268"]);
    let (came, ended) = received(&package(&[one("tank/a@2"), one("tank/a@3")]));
    ended.unwrap();
    assert_eq!(came, ["vault/b@2", "vault/b@3"]);
}

#[test]
fn nothing_but_snapshots_is_taken() {
    // As of `zfs send -p`: behind the header is what is to be set.
    let brings = [record(BEGIN, 8, PACKAGE, "tank/a@3"), vec![0; 8], end(), one("tank/a@3"), end()].concat();
    let (came, ended) = received(&brings);
    assert_eq!((came.len(), why(ended)), (0, Refusal::Other));
    // And one that hides in another one, which zfs receive would look into.
    let (came, ended) = received(&package(&[one("tank/a@2"), brings]));
    assert_eq!((came.len(), why(ended)), (1, Refusal::Corrupt));
    let volumes_only = record(BEGIN, 0, ONE, "tank/a@1").into_iter().enumerate();
    let other_kind: Vec<u8> = volumes_only.map(|(at, byte)| if at == 32 { 9 } else { byte }).collect();
    let long = format!("tank/a@{}", "x".repeat(249));
    for (stream, refusal) in [
        (one("tank/a"), Refusal::Corrupt),
        (one("tank/a@b/c"), Refusal::Corrupt),
        (one("tank/a@%recv"), Refusal::Corrupt),
        (one(&long), Refusal::NameTooLong),
        (other_kind, Refusal::Corrupt),
        (vec![7; 4 * RECORD], Refusal::Corrupt),
        (one("tank/a@1").into_iter().rev().collect(), Refusal::Corrupt),
        ([record(BEGIN, 0, PACKAGE, "tank/a@1"), one("tank/a@1")].concat(), Refusal::Corrupt),
    ] {
        let (came, ended) = received(&stream);
        assert_eq!((came.len(), why(ended)), (0, refusal));
    }
}

#[test]
fn a_stream_that_breaks_off_anywhere_is_incomplete() {
    let whole = package(&[one("tank/a@2"), one("tank/a@3")]);
    for length in (0..whole.len()).step_by(13).chain([whole.len() - 1]) {
        let (_, ended) = received(&whole[..length]);
        assert_eq!(why(ended), Refusal::Incomplete, "{length} bytes");
    }
}

#[test]
fn numbers_have_meanings() {
    let header = |version: u64, from: u64| {
        let mut bytes = record(BEGIN, 0, version, "tank/a@1");
        bytes[48..56].copy_from_slice(&from.to_ne_bytes());
        Header(bytes.try_into().unwrap())
    };
    let plain = header(ONE, 6);
    for (number, header, refusal) in [
        (Errno::ETXTBSY as i32, &plain, Refusal::Modified),
        (Errno::ENODEV as i32, &plain, Refusal::NotTheBase),
        (Errno::EEXIST as i32, &plain, Refusal::Exists),
        (Errno::EEXIST as i32, &header(ONE, 0), Refusal::NotTheBase),
        (Errno::EINVAL as i32, &plain, Refusal::Corrupt),
        // None of these is the link's fault, which would be tried again.
        (Errno::EINVAL as i32, &header(ONE | RAW << 2, 6), Refusal::Other),
        (Errno::EINVAL as i32, &header(ONE | EMBEDDED << 2, 6), Refusal::Other),
        (TRUNCATED, &plain, Refusal::Incomplete),
        (Errno::EBADE as i32, &plain, Refusal::Corrupt),
        (5, &plain, Refusal::Other),
    ] {
        assert_eq!(means(number, header).0, refusal, "{number}");
    }
    assert!(means(5, &plain).1.contains("Input/output error"), "{}", means(5, &plain).1);
}
