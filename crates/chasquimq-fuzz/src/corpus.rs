//! The inputs that a run begins with: `corpus/<target>.txt`, one a line, in hex.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The inputs of a target.
pub struct Corpus(Vec<Vec<u8>>);

impl Corpus {
    /// Reads the corpus of a target.
    ///
    /// # Errors
    /// When the file is missing, empty, or no hex.
    pub fn of(target: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("corpus/{target}.txt"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let inputs: Vec<_> = lines.map(unhex).collect::<Result<_>>()?;
        ensure!(!inputs.is_empty(), "{} holds no input", path.display());
        Ok(Self(inputs))
    }

    pub(crate) fn into_inputs(self) -> Vec<Vec<u8>> {
        self.0
    }
}

fn unhex(line: &str) -> Result<Vec<u8>> {
    ensure!(line.is_ascii() && line.len().is_multiple_of(2), "{line:?} is no hex");
    let byte = |at| u8::from_str_radix(&line[at..at + 2], 16).with_context(|| line.to_owned());
    (0..line.len()).step_by(2).map(byte).collect()
}
