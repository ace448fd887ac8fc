//! A fuzzer on stable Rust, without coverage: the target's own outcomes tell what is new.
//!
//! An input that leads to an outcome not seen before joins the corpus of the run and is changed
//! further. A panic is a finding, and so is taking much more memory than the input has bytes.

mod corpus;
mod mutate;

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use chasquimq::fuzzing::Target;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use corpus::Corpus;
use mutate::mutate;

/// Inputs kept in a run.
const MOST_KEPT: usize = 4096;
/// How long a mutated input may be, in bytes.
const LONGEST: usize = 16 * 1024;

/// Bytes of memory that an input may take: some for nothing, and so many for each of its own.
const MEMORY: (usize, usize) = (512 * 1024, 1024);

/// A target being fuzzed.
pub struct Run<'t> {
    target: &'t Target,
    inputs: Vec<Vec<u8>>,
    seen: HashSet<u64>,
    random: StdRng,
    executions: u64,
    most_memory: u64,
}

/// An input that does harm.
#[derive(Debug)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// What came of it.
    pub what: String,
}

impl<'t> Run<'t> {
    /// A run that begins with the corpus; its random choices follow from the seed.
    #[must_use]
    pub fn new(target: &'t Target, corpus: Corpus, seed: u64) -> Self {
        Self {
            target,
            inputs: corpus.into_inputs(),
            seen: HashSet::new(),
            random: StdRng::seed_from_u64(seed),
            executions: 0,
            most_memory: 0,
        }
    }

    /// Feeds the corpus, then changed inputs until the time is over.
    ///
    /// # Errors
    /// The first finding.
    pub fn until(&mut self, time: Duration) -> Result<(), Finding> {
        let begun = Instant::now();
        for at in 0..self.inputs.len() {
            let input = self.inputs[at].clone();
            let outcome = self.execute(&input)?;
            self.seen.insert(outcome);
        }
        while begun.elapsed() < time {
            let input = mutate(&self.inputs, LONGEST, &mut self.random);
            let outcome = self.execute(&input)?;
            if !self.seen.insert(outcome) {
                continue;
            }
            if self.inputs.len() < MOST_KEPT {
                self.inputs.push(input);
            } else {
                let at = self.random.random_range(0..self.inputs.len());
                self.inputs[at] = input;
            }
        }
        Ok(())
    }

    fn execute(&mut self, input: &[u8]) -> Result<u64, Finding> {
        self.executions += 1;
        let finding = |what| Finding { input: input.to_vec(), what };
        let mut outcome = None;
        let run = || (self.target.run)(input);
        let used = allocation_counter::measure(|| {
            outcome = catch_unwind(AssertUnwindSafe(run)).ok();
        });
        self.most_memory = self.most_memory.max(used.bytes_max);
        // First of all: telling of a panic takes memory of its own.
        let outcome = outcome.ok_or_else(|| finding("panicked; its words stand above".into()))?;
        let (free, each) = MEMORY;
        let allowed = free + each * input.len();
        if used.bytes_max > allowed as u64 {
            let what = format!("took {} bytes of memory, more than {allowed}", used.bytes_max);
            return Err(finding(what));
        }
        Ok(outcome)
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (executions, memory) = (self.executions, self.most_memory);
        let (kept, outcomes) = (self.inputs.len(), self.seen.len());
        write!(
            f,
            "{executions} inputs, {outcomes} kinds of outcome, {kept} inputs kept, at most {memory} \
             bytes of memory"
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        self.input.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chasquimq::fuzzing::TARGETS;

    fn run(target: &Target) -> Result<(), Finding> {
        Run::new(target, Corpus::of("entry").unwrap(), 7).until(Duration::from_secs(2))
    }

    #[test]
    fn a_short_run_of_each_target_finds_nothing() {
        let short = |target: &Target| {
            let mut run = Run::new(target, Corpus::of(target.name).unwrap(), 2);
            let found = run.until(Duration::from_secs(2));
            assert!(found.is_ok(), "{}: {}", target.name, found.unwrap_err());
            assert!(run.executions > 100 && run.seen.len() > 5, "{}: {run}", target.name);
        };
        std::thread::scope(|scope| {
            for target in TARGETS {
                scope.spawn(|| short(target));
            }
        });
    }

    #[test]
    fn panics_and_memory_are_found() {
        let panics = |bytes: &[u8]| {
            assert_ne!(bytes.len() % 7, 3, "as if by chance");
            0
        };
        assert!(
            run(&Target { name: "panics", run: panics }).unwrap_err().what.contains("panicked")
        );
        let greedy = |bytes: &[u8]| {
            let announced = usize::from(*bytes.first().unwrap_or(&0)) << 20;
            Vec::<u8>::with_capacity(announced).capacity() as u64
        };
        assert!(run(&Target { name: "greedy", run: greedy }).unwrap_err().what.contains("memory"));
    }
}
