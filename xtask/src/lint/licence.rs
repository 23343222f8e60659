//! SPDX licence expressions: which of the licences they offer are met.

use anyhow::{Result, bail};

/// The licences that satisfy the expression under `holds`, or `None` if it cannot be satisfied.
///
/// Knows `AND`, `OR`, `WITH`, parentheses, and the old `/` for `OR`.
///
/// # Errors
/// When it is not an expression.
pub fn satisfied_by(expression: &str, holds: &dyn Fn(&str) -> bool) -> Result<Option<Vec<String>>> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, holds };
    let met = parser.any()?;
    if !parser.words.is_empty() {
        bail!("`{expression}` is not a licence expression");
    }
    Ok(met)
}

type Met = Option<Vec<String>>;

struct Parser<'a> {
    words: &'a [&'a str],
    holds: &'a dyn Fn(&str) -> bool,
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn any(&mut self) -> Result<Met> {
        let mut met = self.all()?;
        while self.take("OR") {
            let other = self.all()?;
            met = met.or(other);
        }
        Ok(met)
    }

    fn all(&mut self) -> Result<Met> {
        let mut met = self.one()?;
        while self.take("AND") {
            met = match (met, self.one()?) {
                (Some(mut left), Some(right)) => {
                    left.extend(right);
                    Some(left)
                }
                _ => None,
            };
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<Met> {
        if self.take("(") {
            let met = self.any()?;
            if !self.take(")") {
                bail!("a parenthesis is not closed");
            }
            return Ok(met);
        }
        let Some((name, rest)) = self.words.split_first() else { bail!("a licence is missing") };
        self.words = rest;
        let mut name = (*name).to_owned();
        if self.take("WITH")
            && let Some((exception, rest)) = self.words.split_first()
        {
            name = format!("{name} WITH {exception}");
            self.words = rest;
        }
        Ok((self.holds)(&name).then(|| vec![name]))
    }
}

#[cfg(test)]
mod tests {
    use super::satisfied_by;

    #[test]
    fn an_expression_needs_all_of_and_and_one_of_or() {
        let holds = |name: &str| ["MIT", "Apache-2.0 WITH LLVM-exception"].contains(&name);
        let met = |expression| satisfied_by(expression, &holds).unwrap().is_some();
        assert!(met("MIT"));
        assert!(met("GPL-2.0 OR MIT"));
        assert!(met("Zlib/MIT"));
        assert!(met("(Zlib OR MIT) AND Apache-2.0 WITH LLVM-exception"));
        assert!(!met("MIT AND Zlib"));
        assert!(!met("Apache-2.0"));
        assert!(satisfied_by("MIT MIT", &holds).is_err());
        assert!(satisfied_by("(MIT", &holds).is_err());
    }
}
