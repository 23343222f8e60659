//! Setting root's password hash in the text of shadow(5).

/// Why the text was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShadowError {
    /// What was given is no crypt(5) hash.
    #[error("what was given as password is no crypt(5) hash")]
    NoHash,
    /// There is no line for root.
    #[error("/etc/shadow has no line for root")]
    NoRoot,
}

/// The text with this hash as root's; every other line and field is kept to the byte.
///
/// # Errors
/// When `hash` is no hash (an empty one would let anybody in), or root is not there.
pub fn set_root_hash(shadow: &str, hash: &str) -> Result<String, ShadowError> {
    let fits = hash.starts_with('$') && hash.len() > 8 && hash.chars().all(|c| c.is_ascii_graphic() && c != ':');
    if !fits {
        return Err(ShadowError::NoHash);
    }
    let mut found = false;
    let lines = shadow.split_inclusive('\n').map(|line| {
        match line.strip_prefix("root:").and_then(|rest| rest.split_once(':')) {
            Some((_, rest)) if !found => {
                found = true;
                format!("root:{hash}:{rest}")
            }
            _ => line.to_owned(),
        }
    });
    let text: String = lines.collect();
    if found { Ok(text) } else { Err(ShadowError::NoRoot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHADOW: &str = "daemon:*:19000:0:99999:7:::\nroot:*:19000:0:99999:7:::\nrooted:*:1::::::\n";
    const HASH: &str = "$y$j9T$abcdefgh$ijklmnop";

    #[test]
    fn only_roots_hash_changes() {
        let text = set_root_hash(SHADOW, HASH).unwrap();
        assert_eq!(text, SHADOW.replace("root:*:19000", &format!("root:{HASH}:19000")));
        assert_eq!(set_root_hash(&text, HASH).unwrap(), text);
    }

    #[test]
    fn what_would_open_the_box_or_break_the_file_is_refused() {
        for bad in ["", "x", "plain", "$6$a:b$cccccc", "$6$abcdefg\nroot2::", "$6$ab cdefghi"] {
            assert_eq!(set_root_hash(SHADOW, bad), Err(ShadowError::NoHash), "{bad:?}");
        }
        assert_eq!(set_root_hash("daemon:*:1::::::\n", HASH), Err(ShadowError::NoRoot));
    }
}
