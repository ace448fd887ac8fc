//! The only place that writes to stdout and stderr.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The terminal, or whatever the streams are connected to.
#[derive(Debug)]
pub struct Ui(());

/// Nobody reads the output any more: a command stops, quietly and without failure.
#[derive(Debug)]
pub(crate) struct Closed;

impl Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the output is closed")
    }
}

impl std::error::Error for Closed {}

impl Ui {
    pub(crate) fn stdio() -> Self {
        Self(())
    }

    /// Writes one line of result to stdout.
    ///
    /// # Errors
    ///
    /// `Closed` when the reader has gone, else the system's error.
    pub fn line(&self, text: impl Display) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
            outcome => outcome.map_err(Into::into),
        }
    }

    /// Waits until nobody reads stdout any more: a quiet command would not notice by writing.
    pub(crate) async fn closed(&self) -> anyhow::Error {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            let out = io::stdout();
            let mut watched = [PollFd::new(&out, PollFlags::empty())];
            let gone = PollFlags::ERR | PollFlags::NVAL;
            if poll(&mut watched, Some(&Timespec::default())).is_ok()
                && watched[0].revents().intersects(gone)
            {
                return Closed.into();
            }
        }
    }

    /// Whether a person reads stdout and wants colours (`NO_COLOR`).
    pub(crate) fn colours() -> bool {
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
    }

    /// Writes lines of a label and a value, aligned.
    ///
    /// # Errors
    ///
    /// As [`line`](Self::line).
    pub fn fields(&self, fields: &[(&str, String)]) -> anyhow::Result<()> {
        let width = fields.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
        fields.iter().try_for_each(|(label, value)| self.line(format!("{label:width$}  {value}")))
    }

    /// Writes one line to stderr about what happens, beside the result.
    pub fn note(&self, text: impl Display) {
        // Nothing is left to tell a failure of stderr to.
        drop(writeln!(io::stderr().lock(), "{text}"));
    }

    /// Writes the sentence of a failure, with its causes, to stderr.
    pub fn error(&self, error: &anyhow::Error) {
        self.note(format!("chasqui: {error:#}"));
    }
}
