use super::served::{Manner, Server};
use super::*;

fn content() -> Vec<u8> {
    (0..10_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect()
}

const NAME: &str = "siris-1.0.0.ibu";

fn serve(manner: Manner) -> Server {
    Server::start(manner, [(NAME.to_owned(), content())].into())
}

fn client() -> Client {
    Client::new(Patience { tries: 3, wait: Duration::from_millis(1) })
}

fn all(client: &Client, url: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(client, url).map_err(io::Error::other)?.into_reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn a_file_is_read_on_where_the_connection_broke() {
    let client = client();
    let server = serve(Manner::Breaks(900_000));
    assert!(all(&client, &server.url(NAME)).unwrap() == content());
    let asked = server.asked();
    assert!(asked.len() > 10, "{asked:?}");
    // Nothing was asked for twice.
    assert_eq!(client.received(), content().len() as u64);
}

#[test]
fn a_server_without_ranges_gives_the_whole_file() {
    let client = client();
    let server = serve(Manner::Whole);
    assert!(matches!(open(&client, &server.url(NAME)).unwrap(), Opened::Whole(_)));
    assert!(all(&client, &server.url(NAME)).unwrap() == content());
}

#[test]
fn trouble_that_passes_is_waited_for_and_other_trouble_is_not() {
    let two = serve(Manner::Trouble(2));
    assert!(all(&client(), &two.url(NAME)).unwrap() == content());
    let server = serve(Manner::Trouble(3));
    let error = open(&client(), &server.url(NAME)).err().unwrap();
    assert_eq!((error.code(), server.asked().len()), ("download-failed", 3));
    let missing = server.url("siris-2.0.0.ibu");
    assert_eq!(open(&client(), &missing).err().unwrap().code(), "bundle-not-found");
    assert_eq!(server.asked().len(), 4, "what is not there was asked for again");
    assert_eq!(open(&client(), "ftp://there/siris.ibu").err().unwrap().code(), "no-such-address");
}

#[test]
fn parts_of_two_files_are_never_put_together() {
    let server = serve(Manner::Changes);
    let error = all(&client(), &server.url(NAME)).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn only_the_wanted_parts_come_in_their_order() {
    let (client, server, file) = (client(), serve(Manner::Ranges), content());
    let remote = unopened(&client, server.url(NAME));
    let parts = [0..10, 20..30, 5_000..5_001, 100_000..4_400_000, 9_999_990..10_000_000];
    let mut bytes = Vec::new();
    remote.parts(&parts).unwrap().read_to_end(&mut bytes).unwrap();
    let wanted: Vec<u8> =
        parts.iter().flat_map(|part| &file[part.start as usize..part.end as usize]).copied().collect();
    assert!(bytes == wanted);
    let mut asked = server.asked();
    asked.sort();
    // The first two lie near each other; the long one is asked for in two.
    let expected =
        ["bytes=0-29", "bytes=100000-4294303", "bytes=4294304-4399999", "bytes=5000-5000", "bytes=9999990-9999999"];
    assert_eq!(asked, expected);
}

#[test]
fn a_reader_that_is_dropped_stops_its_requests() {
    let (client, server) = (client(), serve(Manner::Ranges));
    let remote = unopened(&client, server.url(NAME));
    let mut body = remote.parts(std::slice::from_ref(&(0..10_000_000))).unwrap();
    body.read_exact(&mut [0; 100]).unwrap();
    drop(body);
    thread::sleep(Duration::from_millis(300));
    assert!(client.received() < 6_000_000, "{} bytes came in", client.received());
}

#[test]
fn files_beside_a_bundle_keep_the_query() {
    let beside = |url| beside(url, "blocks");
    assert_eq!(beside("http://a/b/siris-1.ibu").as_deref(), Some("http://a/b/siris-1.blocks"));
    assert_eq!(beside("https://a/siris.ibu?key=1.ibu").as_deref(), Some("https://a/siris.blocks?key=1.ibu"));
    assert_eq!(beside("https://a/siris.tar"), None);
}

#[test]
fn what_may_be_secret_in_an_address_is_not_shown() {
    assert_eq!(shown("https://ops:secret@a.b:8443/x/siris.ibu?token=secret#y"), "https://a.b:8443/x/siris.ibu");
    assert_eq!(shown("http://a/siris.ibu"), "http://a/siris.ibu");
    assert_eq!(shown("http://ops@a"), "http://a");
    let error = open(&client(), "http://ops:secret@127.0.0.1:1/siris.ibu?token=secret").err().unwrap();
    assert!(!crate::chain(&error).contains("secret"), "{}", crate::chain(&error));
}
