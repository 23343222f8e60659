//! Lines in, text out.

use std::io::{self, BufRead, Write};

/// Lines of a screen, less one for the question.
const PAGE: usize = 23;

/// A console.
pub(super) struct Console<'a> {
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

impl<'a> Console<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead, output: &'a mut dyn Write) -> Self {
        Self { input, output }
    }

    /// Text, a line each.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{}", text.trim_end_matches('\n'))?;
        self.output.flush()
    }

    /// Text that may be longer than a screen.
    pub(super) fn pages(&mut self, text: &str) -> io::Result<()> {
        let lines: Vec<&str> = text.lines().collect();
        for (n, page) in lines.chunks(PAGE).enumerate() {
            if n > 0 {
                self.line("-- more: Enter")?;
            }
            for line in page {
                writeln!(self.output, "{line}")?;
            }
        }
        self.output.flush()
    }

    /// A line that a person types. `q` and the end of the input are an error of kind `UnexpectedEof`.
    pub(super) fn line(&mut self, question: &str) -> io::Result<String> {
        write!(self.output, "{question}: ")?;
        self.output.flush()?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A serial line may echo what a terminal sends beside letters.
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        match line.trim() {
            "q" => Err(io::ErrorKind::UnexpectedEof.into()),
            line => Ok(line.to_owned()),
        }
    }

    /// Asks until `read` takes what is typed; an empty line stands for `default`.
    pub(super) fn value<T>(
        &mut self,
        question: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<T> {
        let shown = if default.is_empty() { question.to_owned() } else { format!("{question} [{default}]") };
        loop {
            let line = self.line(&shown)?;
            match read(if line.is_empty() { default } else { &line }) {
                Ok(value) => return Ok(value),
                Err(why) => self.say(&format!("  {why}"))?,
            }
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&mut self, question: &str, default: &str, words: &[(&str, T)]) -> io::Result<T> {
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let question = format!("{question} ({})", list.join(", "));
        self.value(&question, default, |text| {
            let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
            found.ok_or_else(|| format!("one of {}", list.join(", ")))
        })
    }
}
