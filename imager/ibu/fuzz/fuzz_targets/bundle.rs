//! Any bytes as a bundle: what is proven is what was signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siris_ibu::Bundle;
use siris_ibu_fuzz::{POLICY, key};

fuzz_target!(|bytes: &[u8]| {
    let trusted = [key().public().clone()];
    let _ = siris_ibu::bundle::unverified(bytes);
    if let Ok(bundle) = Bundle::open(bytes, &trusted, POLICY) {
        let _ = bundle.prove();
    }
});
