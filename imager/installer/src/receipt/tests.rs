use serde_json::json;

use super::*;

fn signed(receipt: Value, key: &BoxKey) -> Vec<u8> {
    let signature = hex::encode(key.0.sign(&canonical_bytes(&receipt)).to_bytes());
    serde_json::to_vec(&SignedFile { public_key: key.public(), receipt, signature }).unwrap()
}

#[test]
fn canonical_bytes_do_not_depend_on_order_or_blanks() {
    let one: Value = serde_json::from_str("{\"b\": [1, {\"y\":null,\"x\":true}], \"a\": \"\\u00e9\\n\"}").unwrap();
    let two: Value = serde_json::from_str("{\"a\":\"é\\n\",\"b\":[1,{\"x\":true,\"y\":null}]}").unwrap();
    assert_eq!(canonical_bytes(&one), canonical_bytes(&two));
    assert_eq!(canonical_bytes(&one), "{\"a\":\"é\\n\",\"b\":[1,{\"x\":true,\"y\":null}]}".as_bytes());
}

#[test]
fn whatever_is_changed_is_noticed() {
    let key = BoxKey::generate().unwrap();
    let file = signed(json!({"install": "i", "proof": {"holds": false, "failures": ["x"]}}), &key);
    let verified = verify(&file, None).unwrap();
    assert_eq!((verified.install.as_str(), verified.holds), ("i", false));
    let text = String::from_utf8(file.clone()).unwrap();
    let code = |text: &str, key: Option<&str>| verify(text.as_bytes(), key).unwrap_err().code();
    assert_eq!(code(&text.replace("false", "true"), None), "receipt-signature");
    assert_eq!(code(&text.replace("\"x\"", ""), None), "receipt-signature");
    let other = BoxKey::generate().unwrap();
    assert_eq!(code(&text, Some(&other.public())), "receipt-other-key");
    assert_eq!(code(&text.replace(&key.public(), &other.public()), None), "receipt-signature");
    assert_eq!(code("{}", None), "receipt-unreadable");
    assert_eq!(code(&text.replacen("receipt", "extra\":1,\"receipt", 1), None), "receipt-unreadable");
    // Blanks behind it, as it lies in its file on the box, are no change.
    verify(format!("{text}\n\n   \n").as_bytes(), Some(&key.public())).unwrap();
}
