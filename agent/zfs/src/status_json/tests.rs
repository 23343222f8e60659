use super::*;

const STATUS: &[u8] = include_bytes!("../../fixtures/status.json");
const LIST: &[u8] = include_bytes!("../../fixtures/list.json");
const NO_LIST: &[u8] = include_bytes!("../../fixtures/list-none.json");
const NO_STATUS: &[u8] = include_bytes!("../../fixtures/status-none.json");

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn reads_pools_with_their_space_and_members() {
    let spaces = parse_list(LIST).unwrap();
    let pools = parse_status(STATUS, &spaces).unwrap().unwrap();
    let names: Vec<&str> = pools.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["homePool", "old"]);
    let pool = &pools[0];
    assert_eq!(pool.guid.as_u64(), 12_261_162_642_180_690_256);
    assert_eq!(pool.state, PoolState::Degraded);
    assert!(pool.size > pool.free && pool.free > 0);
    let shape: Vec<(&str, &str, PoolState)> =
        pool.members.iter().map(|m| (m.group.as_str(), m.class.as_str(), m.state)).collect();
    let expected = [
        ("mirror-0", "normal", PoolState::Online),
        ("mirror-0", "normal", PoolState::Offline),
        ("", "log", PoolState::Online),
        ("", "cache", PoolState::Online),
        ("", "spare", PoolState::Avail),
    ];
    assert_eq!(shape, expected);
    assert!(pool.members[0].name.starts_with("/dev/"));
}

#[test]
fn no_pools_is_an_empty_list() {
    let none = parse_list(NO_LIST).unwrap();
    assert!(none.is_empty());
    assert_eq!(parse_status(NO_STATUS, &none).unwrap(), Some(Vec::new()));
}

#[test]
fn another_generation_of_the_output_is_refused() {
    let list = text(LIST).replace("\"vers_major\":0", "\"vers_major\":1");
    assert!(matches!(parse_list(list.as_bytes()), Err(JsonError::Version(1, _))));
}

#[test]
fn one_unknown_state_fails_the_call() {
    let spaces = parse_list(LIST).unwrap();
    let status = text(STATUS).replace("\"OFFLINE\"", "\"SIDEWAYS\"");
    assert!(matches!(parse_status(status.as_bytes(), &spaces), Err(JsonError::State(_))));
}

#[test]
fn a_device_that_is_not_there_has_the_kernels_word() {
    let spaces = parse_list(LIST).unwrap();
    let status = text(STATUS).replace("\"OFFLINE\"", "\"CANT_OPEN\"");
    let pools = parse_status(status.as_bytes(), &spaces).unwrap().unwrap();
    assert!(pools.iter().any(|pool| pool.members.iter().any(|member| member.state == PoolState::Unavail)));
}

#[test]
fn a_pool_in_one_of_the_two_only_is_no_answer() {
    let mut spaces = parse_list(LIST).unwrap();
    spaces.pop_first();
    assert!(parse_status(STATUS, &spaces).unwrap().is_none());
}

#[test]
fn a_missing_property_is_an_error() {
    let list = text(LIST).replace("\"free\"", "\"fred\"");
    assert!(matches!(parse_list(list.as_bytes()), Err(JsonError::Property(_, "free"))));
}
