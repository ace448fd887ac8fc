//! Lines joined to jobs, each with its adds and its runs.

use std::collections::{BTreeMap, HashMap};

use super::Verdict;
use crate::log::{Answer, Fault, Line, Nanos, Start, State};
use crate::workload::Kind;

/// A run of a whole fleet.
#[derive(Debug, Default)]
pub struct History {
    pub jobs: BTreeMap<u64, Job>,
    pub faults: Vec<Fault>,
    pub samples: BTreeMap<String, Vec<Sample>>,
    pub state: State,
}

/// A job that a producer tried to add.
#[derive(Debug)]
pub struct Job {
    pub n: u64,
    pub key: Option<String>,
    pub hash: u64,
    pub kind: Kind,
    pub delay_ms: u64,
    pub adds: Vec<Add>,
    /// By their beginning.
    pub runs: Vec<Run>,
}

/// One try.
#[derive(Clone, Copy, Debug)]
pub struct Add {
    pub from: Nanos,
    /// The end of time when no answer was written down.
    pub to: Nanos,
    pub answer: Answer,
}

/// One run of a handler.
#[derive(Clone, Debug)]
pub struct Run {
    pub start: Start,
    pub end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
pub struct End {
    pub ok: bool,
    pub at: Nanos,
}

/// What a worker used.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Nanos,
    pub rss: u64,
    pub fds: u64,
}

impl Job {
    pub fn is_accepted(&self) -> bool {
        self.adds.iter().any(|add| add.answer == Answer::Ok)
    }

    /// Adds that may have stored it.
    pub fn possible_copies(&self) -> usize {
        self.adds.iter().filter(|add| add.answer != Answer::Error).count()
    }

    /// When runs ended well.
    pub fn successes(&self) -> impl Iterator<Item = Nanos> + '_ {
        self.runs.iter().filter_map(|run| run.end).filter(|end| end.ok).map(|end| end.at)
    }
}

impl History {
    /// Joins the lines. What cannot be joined is no job of ours: I3.
    pub fn of(lines: Vec<Line>, verdict: &mut Verdict) -> Self {
        let mut history = Self::default();
        let (mut answers, mut starts, mut ends) = (vec![], vec![], HashMap::new());
        for line in lines {
            match line {
                Line::Sent { n, key, hash, kind, delay_ms, at } => {
                    let add = Add { from: at, to: Nanos::MAX, answer: Answer::Unknown };
                    let new = || Job { n, key, hash, kind, delay_ms, adds: vec![], runs: vec![] };
                    history.jobs.entry(n).or_insert_with(new).adds.push(add);
                }
                Line::Answered { n, answer, at } => answers.push((n, answer, at)),
                Line::Started(start) => starts.push(start),
                Line::Finished { worker, run, ok, at } => {
                    ends.insert((worker, run), End { ok, at });
                }
                Line::Fault(fault) => history.faults.push(fault),
                Line::Sample { worker, rss, fds, at } => {
                    history.samples.entry(worker).or_default().push(Sample { at, rss, fds });
                }
                Line::State(state) => history.state = state,
            }
        }
        history.answer(answers);
        starts.sort_by_key(|start| start.at);
        for start in starts {
            let end = ends.get(&(start.worker.clone(), start.run)).copied();
            match history.jobs.get_mut(&start.n) {
                Some(job) => job.runs.push(Run { start, end }),
                None => verdict.broken("I3", format!("job {} ran and was never added", start.n)),
            }
        }
        history
    }

    /// A producer adds a job again only after the answer to its last try.
    fn answer(&mut self, mut answers: Vec<(u64, Answer, Nanos)>) {
        answers.sort_by_key(|(.., at)| *at);
        for job in self.jobs.values_mut() {
            job.adds.sort_by_key(|add| add.from);
        }
        for (n, answer, at) in answers {
            let adds = self.jobs.get_mut(&n).map(|job| job.adds.iter_mut());
            if let Some(add) = adds.and_then(|mut adds| adds.find(|add| add.to == Nanos::MAX)) {
                (add.answer, add.to) = (answer, at);
            }
        }
    }
}
