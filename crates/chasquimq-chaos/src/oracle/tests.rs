//! Logs written by hand, each of which breaks one invariant: the checker can fail.

use super::*;
use crate::log::{Answer, Dead, Fault, Start, State};
use crate::worker::failure;
use crate::workload::Kind;

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1000 * MS;

const RULES: Rules = Rules {
    lease: Duration::from_secs(2),
    max_attempts: 3,
    concurrency: 10,
    in_flight: 74,
    may_lose: Duration::ZERO,
};

/// Logs as they grow. A job's number is its payload's hash and, behind an `i`, its id.
struct Story {
    lines: Vec<Line>,
    state: State,
    runs: u64,
}

impl Story {
    fn new() -> Self {
        let state = State { drained: true, ..State::default() };
        Self { lines: vec![], state, runs: 0 }
    }

    /// One healthy job, so that not every story begins with nothing.
    fn healthy() -> Self {
        Self::new().added(1, Kind::Plain, 0).ran(1, "w0.0", SECOND, 0, true)
    }

    fn sent(mut self, n: u64, kind: Kind, at: Nanos) -> Self {
        let delay_ms = if kind == Kind::Delayed { 1000 } else { 0 };
        let key = (kind == Kind::Keyed).then(|| "key".to_owned());
        self.lines.push(Line::Sent { n, key, hash: n, kind, delay_ms, at });
        self
    }

    fn answered(mut self, n: u64, answer: Answer, at: Nanos) -> Self {
        self.lines.push(Line::Answered { n, answer, at });
        self
    }

    fn added(self, n: u64, kind: Kind, at: Nanos) -> Self {
        self.sent(n, kind, at).answered(n, Answer::Ok, at + MS)
    }

    fn started(mut self, n: u64, worker: &str, at: Nanos, attempt: u32) -> Self {
        let before = |line: &&Line| matches!(line, Line::Started(start) if start.n == n);
        let lost = self.lines.iter().filter(before).count() as u32;
        let (worker, run, id) = (worker.to_owned(), self.runs, format!("i{n}"));
        self.runs += 1;
        self.lines.push(Line::Started(Start { worker, run, n, id, hash: n, attempt, lost, at }));
        self
    }

    /// Edits the last start.
    fn but(mut self, edit: impl FnOnce(&mut Start)) -> Self {
        let last = self.lines.iter_mut().rev().find_map(|line| match line {
            Line::Started(start) => Some(start),
            _ => None,
        });
        edit(last.expect("a start"));
        self
    }

    /// A run of 10 ms.
    fn ran(mut self, n: u64, worker: &str, at: Nanos, attempt: u32, ok: bool) -> Self {
        self = self.started(n, worker, at, attempt);
        let (worker, run) = (worker.to_owned(), self.runs - 1);
        self.lines.push(Line::Finished { worker, run, ok, at: at + 10 * MS });
        self
    }

    fn of_key(self) -> Self {
        self.but(|start| start.id = "key".to_owned())
    }

    fn fault(mut self, what: Harm, whom: &str, from: Nanos, to: Nanos) -> Self {
        self.lines.push(Line::Fault(Fault { what, whom: whom.to_owned(), from, to }));
        self
    }

    fn died(mut self, n: u64) -> Self {
        let reason = "retries_exhausted".to_owned();
        self.state.dead.push(Dead { n, hash: n, reason, error: failure(n), lost: 0 });
        self
    }

    fn end(self, edit: impl FnOnce(&mut State)) -> Self {
        let mut story = self;
        edit(&mut story.state);
        story
    }

    fn judged_by(self, rules: &Rules) -> Verdict {
        let mut lines = self.lines;
        lines.push(Line::State(self.state));
        // The order of lines must not matter.
        lines.reverse();
        judge(lines, rules)
    }

    fn judged(self) -> Verdict {
        self.judged_by(&RULES)
    }

    #[track_caller]
    fn breaks(self, invariants: &[&str]) -> Figures {
        let verdict = self.judged();
        let found: Vec<_> = verdict.violations.iter().map(|broken| broken.invariant).collect();
        assert_eq!(found, invariants, "{:?}", verdict.violations);
        verdict.figures
    }

    #[track_caller]
    fn holds(self) -> Figures {
        self.breaks(&[])
    }
}

fn poison(n: u64) -> Story {
    let story = Story::new().added(n, Kind::Poison, 0);
    (0..3).fold(story, |story, attempt| {
        story.ran(n, "w0.0", SECOND * (1 + u64::from(attempt)), attempt, false)
    })
}

#[test]
fn a_run_as_it_should_be_breaks_nothing() {
    let figures = Story::healthy()
        .added(2, Kind::FailsOnce, 0)
        .ran(2, "w0.0", SECOND, 0, false)
        .ran(2, "w1.0", 2 * SECOND, 1, true)
        .added(3, Kind::Delayed, 0)
        .ran(3, "w1.0", 1010 * MS, 0, true)
        .sent(4, Kind::Plain, 0)
        .answered(4, Answer::Error, MS)
        .sent(5, Kind::Plain, 0)
        .answered(5, Answer::Unknown, MS)
        .holds();
    assert_eq!((figures.jobs, figures.unknown, figures.lost, figures.duplicates), (3, 1, 0, 0));
    assert_eq!(figures.late_p99_ms, 9);
    let figures = poison(7).died(7).holds();
    assert!(figures.dlq_exact && figures.dead == 1);
}

#[test]
fn nothing_added_is_nothing_shown() {
    Story::new().breaks(&["run"]);
}

#[test]
fn i1_an_accepted_job_that_is_nowhere() {
    let figures = Story::healthy().added(2, Kind::Plain, 0).breaks(&["I1"]);
    assert_eq!((figures.lost, figures.lost_in_window), (1, 0));
    Story::healthy().added(2, Kind::Plain, 0).started(2, "w0.0", SECOND, 0).breaks(&["I1"]);
    let once = Story::healthy().added(2, Kind::FailsOnce, 0);
    once.ran(2, "w0.0", SECOND, 0, false).breaks(&["I1"]);
}

#[test]
fn i1_an_id_is_live_or_its_job_runs() {
    let one = || Story::new().added(1, Kind::Keyed, 0).ran(1, "w0.0", SECOND, 0, true).of_key();
    one().added(2, Kind::Keyed, MS).holds();
    one().added(2, Kind::Keyed, 60 * SECOND).breaks(&["I1"]);
}

#[test]
fn i1_a_crash_excuses_what_was_accepted_shortly_before() {
    let story = |added: Nanos| {
        Story::healthy().added(2, Kind::Plain, added).fault(
            Harm::Crash,
            "",
            10 * SECOND,
            11 * SECOND,
        )
    };
    let rules = Rules { may_lose: Duration::from_secs(2), ..RULES };
    let excused = story(9 * SECOND).judged_by(&rules);
    assert!(excused.violations.is_empty(), "{:?}", excused.violations);
    assert_eq!((excused.figures.lost, excused.figures.lost_in_window), (1, 1));
    assert_eq!(story(7 * SECOND).judged_by(&rules).violations[0].invariant, "I1");
    assert_eq!(story(12 * SECOND).judged_by(&rules).violations[0].invariant, "I1");
    story(9 * SECOND).breaks(&["I1"]);
}

#[test]
fn i2_a_refused_job_that_runs_and_a_job_that_is_there_twice() {
    let refused = Story::healthy().sent(2, Kind::Plain, 0).answered(2, Answer::Error, MS);
    refused.ran(2, "w0.0", SECOND, 0, true).breaks(&["I2"]);
    let twice = Story::healthy().ran(1, "w0.0", 2 * SECOND, 0, true);
    twice.but(|start| start.id = "another".to_owned()).breaks(&["I2"]);
}

#[test]
fn i3_what_was_never_added_or_has_changed() {
    Story::healthy().ran(2, "w0.0", SECOND, 0, true).breaks(&["I3"]);
    Story::healthy().died(3).breaks(&["I3"]);
    Story::healthy().but(|start| start.hash = 99).breaks(&["I3"]);
    Story::new().added(1, Kind::Plain, 5 * SECOND).ran(1, "w0.0", SECOND, 0, true).breaks(&["I3"]);
}

#[test]
fn i4_a_second_run_needs_a_fault_of_the_first_one_s_worker() {
    let twice = || Story::healthy().ran(1, "w1.0", 4 * SECOND, 0, true);
    let figures = twice().breaks(&["I4", "I4"]);
    assert_eq!((figures.duplicates, figures.explained), (1, 0));
    let figures = twice().fault(Harm::Stall, "w0", SECOND, 3 * SECOND).holds();
    assert_eq!((figures.duplicates, figures.explained), (1, 1));
    assert_eq!(figures.causes, BTreeMap::from([("Stall".to_owned(), 1)]));
    twice().fault(Harm::KillClients, "", SECOND, SECOND).holds();
    twice().fault(Harm::Kill, "w0.0", 2 * SECOND, 2 * SECOND).holds();
    // Another worker's fault, another incarnation's, one that came too late, or one that does no harm.
    twice().fault(Harm::Stall, "w1", SECOND, 3 * SECOND).breaks(&["I4"]);
    twice().fault(Harm::Kill, "w0.1", 2 * SECOND, 2 * SECOND).breaks(&["I4"]);
    twice().fault(Harm::Stall, "w0", 5 * SECOND, 7 * SECOND).breaks(&["I4"]);
    twice().fault(Harm::Kill, "w0.0", 5 * SECOND, 5 * SECOND).breaks(&["I4"]);
    twice().fault(Harm::FlushScripts, "", SECOND, SECOND).breaks(&["I4", "I4"]);
    // Delivered once and run twice.
    let once = twice().but(|start| start.lost = 0);
    once.fault(Harm::Stall, "w0", SECOND, 3 * SECOND).breaks(&["I4"]);
}

#[test]
fn i4_a_run_that_did_not_end_needs_an_explanation_and_is_no_duplicate() {
    let again = || {
        Story::new().added(1, Kind::Plain, 0).started(1, "w0.0", SECOND, 0).ran(
            1,
            "w1.0",
            4 * SECOND,
            0,
            true,
        )
    };
    assert_eq!(again().breaks(&["I4"]).duplicates, 0);
    assert_eq!(again().fault(Harm::Kill, "w0.0", SECOND, SECOND).holds().duplicates, 0);
}

#[test]
fn i4_more_duplicates_than_the_faults_can_make() {
    let rules = Rules { concurrency: 1, in_flight: 1, ..RULES };
    let mut story = Story::new().fault(Harm::Kill, "w0.0", 2 * SECOND, 2 * SECOND);
    for n in 1..=2 {
        story = story.added(n, Kind::Plain, 0);
        story = story.ran(n, "w0.0", SECOND, 0, true).ran(n, "w1.0", 4 * SECOND, 0, true);
    }
    let verdict = story.judged_by(&rules);
    assert_eq!(verdict.violations.len(), 1, "{:?}", verdict.violations);
    assert_eq!((verdict.figures.duplicates, verdict.figures.explained), (2, 2));
}

#[test]
fn i4_adding_again_after_a_lost_reply_explains_a_second_run() {
    let story = Story::new()
        .sent(1, Kind::Keyed, 0)
        .answered(1, Answer::Unknown, 3 * SECOND)
        .ran(1, "w0.0", SECOND, 0, true)
        .of_key()
        .sent(1, Kind::Keyed, 4 * SECOND)
        .answered(1, Answer::Ok, 5 * SECOND)
        .ran(1, "w1.0", 6 * SECOND, 0, true)
        .of_key()
        .fault(Harm::Cut, "p1", SECOND, SECOND);
    assert_eq!(story.holds().causes, BTreeMap::from([("AddedAgain".to_owned(), 1)]));
}

#[test]
fn i5_too_many_runs_and_the_wrong_dead() {
    let missing = poison(7).breaks(&["I1"]);
    assert!(!missing.dlq_exact);
    assert!(!poison(7).died(7).died(7).breaks(&["I5"]).dlq_exact);
    assert!(!Story::healthy().died(1).breaks(&["I5"]).dlq_exact);
    let lost = poison(7).died(7).end(|state| state.dead[0].reason = "worker_lost".into());
    assert!(!lost.breaks(&["I5"]).dlq_exact);
    let silent = poison(7).died(7).end(|state| state.dead[0].error.clear());
    silent.breaks(&["I5"]);
    poison(7).ran(7, "w0.0", 9 * SECOND, 3, false).died(7).breaks(&["I5"]);
}

#[test]
fn i6_two_live_jobs_of_one_id() {
    let story = |second: Nanos| {
        Story::new()
            .added(1, Kind::Keyed, 0)
            .added(2, Kind::Keyed, 0)
            .ran(1, "w0.0", SECOND, 0, true)
            .of_key()
            .ran(2, "w1.0", second, 0, true)
            .of_key()
    };
    story(2 * SECOND).holds();
    story(SECOND + MS).breaks(&["I6"]);
}

#[test]
fn i9_a_delayed_job_that_begins_early() {
    let story = |at: Nanos| Story::new().added(1, Kind::Delayed, 0).ran(1, "w0.0", at, 0, true);
    story(996 * MS).holds();
    story(994 * MS).breaks(&["I9"]);
}

#[test]
fn i10_what_is_left_behind() {
    Story::healthy().end(|state| state.drained = false).breaks(&["I10"]);
    Story::healthy().end(|state| state.leftovers.push("a key".into())).breaks(&["I10"]);
    Story::healthy().end(|state| (state.consumers, state.living) = (4, 3)).breaks(&["I10"]);
    let grown = |state: &mut State| (state.memory_before, state.memory_after) = (1000, 1_100_000);
    Story::healthy().end(grown).breaks(&["I10"]);
    Story::healthy().end(|state| state.misdeeds.push("w0.0 hung".into())).breaks(&["process"]);
}

#[test]
fn i12_a_worker_that_grows() {
    let story = |rss: fn(u64) -> u64, fds: fn(u64) -> u64| {
        let mut story = Story::healthy();
        for n in 0..100 {
            let (worker, at) = ("w2.0".to_owned(), n * SECOND);
            story.lines.push(Line::Sample { worker, rss: rss(n), fds: fds(n), at });
        }
        story
    };
    let flat: fn(u64) -> u64 = |_| 20_000_000;
    let few: fn(u64) -> u64 = |n| 10 + n % 3;
    story(flat, few).holds();
    story(|n| 20_000_000 + n * 100_000, few).breaks(&["I12"]);
    story(flat, |n| 10 + n / 5).breaks(&["I12"]);
}
