//! Random adds, reads, finishes and harm by others: the stream holds what a model of it holds.

use std::cell::RefCell;
use std::collections::HashSet;

use bytes::Bytes;
use chasquimq_testkit::Server;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::{finish, nodes, trims};
use crate::store::tests::support::{GROUP, ME, OTHER, Queue, text};

const CASES: u32 = 50;
const OPERATIONS: usize = 40;

#[derive(Clone, Debug)]
enum Op {
    Add {
        count: usize,
        size: usize,
    },
    Read {
        by: &'static str,
        count: usize,
    },
    /// Of what is pending: leaves out so many, then takes every `step`th; together with one that is
    /// settled and gone already, if `again`.
    Finish {
        skip: usize,
        step: usize,
        count: usize,
        again: bool,
    },
    /// Somebody deletes an entry, whatever its state.
    Delete(prop::sample::Index),
    /// Somebody trims the stream by so many entries.
    Trim(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..60usize, 0..300usize).prop_map(|(count, size)| Op::Add { count, size }),
        4 => (prop_oneof![Just(ME), Just(OTHER)], 1..90usize)
            .prop_map(|(by, count)| Op::Read { by, count }),
        8 => (prop_oneof![3 => Just(0), 1 => 0..9usize], prop_oneof![3 => Just(1), 1 => 1..4usize],
              1..70usize, prop::bool::weighted(0.1))
            .prop_map(|(skip, step, count, again)| Op::Finish { skip, step, count, again }),
        1 => any::<prop::sample::Index>().prop_map(Op::Delete),
        1 => (1..9usize).prop_map(Op::Trim),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Pending,
    Settled,
}

#[derive(Debug)]
struct Known {
    id: Bytes,
    value: String,
    state: State,
    /// Nobody else has deleted it.
    is_there: bool,
}

/// What should be in the stream, and what has been done to it.
struct Model<'s> {
    queue: Queue<'s>,
    entries: Vec<Known>,
    trims: usize,
}

impl Model<'_> {
    async fn play(&mut self, ops: &[Op]) {
        for op in ops {
            self.carry_out(op).await;
            self.check().await;
        }
        self.read(ME, usize::MAX >> 1).await;
        while self.entries.iter().any(|entry| entry.state == State::Pending) {
            self.finish(0, 1, 50, false).await;
        }
        self.check().await;
        assert_eq!(self.queue.dump().await.lingering, 0);
        assert_eq!(nodes(&self.queue).await, 0);
    }

    async fn carry_out(&mut self, op: &Op) {
        match *op {
            Op::Add { count, size } => self.add(count, size).await,
            Op::Read { by, count } => self.read(by, count).await,
            Op::Finish { skip, step, count, again } => self.finish(skip, step, count, again).await,
            Op::Delete(index) if !self.entries.is_empty() => {
                let entry = index.get(&self.entries).id.clone();
                self.queue.run(&["XDEL", &self.queue.key("stream"), &text(&entry)]).await;
                self.lose(&[text(&entry)]);
            }
            Op::Delete(_) => {}
            Op::Trim(by) => {
                let there = self.queue.dump().await.stream;
                let by = by.min(there.len());
                let length = (there.len() - by).to_string();
                self.queue.run(&["XTRIM", &self.queue.key("stream"), "MAXLEN", &length]).await;
                self.trims += 1;
                let lost: Vec<_> = there.into_iter().take(by).map(|(id, _)| id).collect();
                self.lose(&lost);
            }
        }
    }

    fn lose(&mut self, ids: &[String]) {
        for entry in &mut self.entries {
            entry.is_there &= !ids.contains(&text(&entry.id));
        }
    }

    async fn add(&mut self, count: usize, size: usize) {
        for _ in 0..count {
            let value = format!("{:x<size$}", self.entries.len());
            let id = self.queue.run(&["XADD", &self.queue.key("stream"), "*", "j", &value]).await;
            let id = id.text().into();
            self.entries.push(Known { id, value, state: State::Waiting, is_there: true });
        }
    }

    async fn read(&mut self, by: &str, count: usize) {
        let (stream, most) = (self.queue.key("stream"), count.to_string());
        let read = ["XREADGROUP", "GROUP", GROUP, by, "COUNT", &most, "STREAMS", &stream, ">"];
        self.queue.run(&read).await;
        let is_next = |entry: &&mut Known| entry.is_there && entry.state == State::Waiting;
        for entry in self.entries.iter_mut().filter(is_next).take(count) {
            entry.state = State::Pending;
        }
    }

    async fn finish(&mut self, skip: usize, step: usize, count: usize, again: bool) {
        let there = self.queue.dump().await.stream;
        let is_gone = |entry: &Known| there.iter().all(|(id, _)| *id != text(&entry.id));
        let in_state = |state| {
            let entries = self.entries.iter().enumerate();
            entries.filter(move |(_, entry)| entry.state == state)
        };
        let pending = in_state(State::Pending).skip(skip).step_by(step).take(count);
        let mut picks: Vec<_> = pending.map(|(n, _)| n).collect();
        if picks.is_empty() {
            return;
        }
        let mut settled = in_state(State::Settled).filter(|(_, entry)| again && is_gone(entry));
        let settled = settled.next_back().map(|(n, _)| n);
        picks.extend(settled);
        // Acknowledged as a whole, or deleted one by one.
        let is_deleted = |n: usize| Some(n) != settled && self.entries[n].is_there;
        let verdict = |&n: &usize| if settled.is_none() || is_deleted(n) { 'y' } else { 'n' };
        let expected: String = picks.iter().map(verdict).collect();
        let ids = picks.iter().map(|&n| &self.entries[n].id);
        assert_eq!(finish(&self.queue, ids).await, expected);
        for n in picks {
            self.entries[n].state = State::Settled;
        }
    }

    async fn check(&self) {
        let seen = self.queue.dump().await;
        let there = self.entries.iter().filter(|entry| entry.is_there);
        let (settled, live): (Vec<_>, Vec<_>) =
            there.partition(|entry| entry.state == State::Settled);
        let settled: HashSet<_> = settled.iter().map(|entry| &*entry.value).collect();
        let (lingering, there): (Vec<_>, Vec<_>) =
            seen.values().into_iter().partition(|value| settled.contains(value));
        assert_eq!(there, live.iter().map(|entry| &*entry.value).collect::<Vec<_>>());
        let (lingering, counted) = (lingering.len(), seen.lingering);
        let is_harmed = self.entries.iter().any(|entry| !entry.is_there);
        assert!(
            lingering == counted || is_harmed && lingering < counted,
            "{lingering} of {counted}"
        );
        let pending = self.entries.iter().filter(|entry| entry.state == State::Pending);
        let expected: Vec<_> = pending.map(|entry| text(&entry.id)).collect();
        assert_eq!(seen.pending.into_iter().map(|(id, ..)| id).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_and_its_model_agree_whatever_is_finished_when() {
    let server = Server::start().await;
    let trimmed_by_others = RefCell::new(0);
    let play = async |ops: Vec<Op>| {
        server.command(&["FLUSHALL"]).await;
        let queue = Queue::on(&server).await;
        queue.deliver(&[]).await;
        let mut model = Model { queue, entries: Vec::new(), trims: 0 };
        model.play(&ops).await;
        *trimmed_by_others.borrow_mut() += model.trims;
    };
    let config = Config { cases: CASES, rng_seed: RngSeed::Fixed(1), ..Config::default() };
    // The runner knows of no futures.
    let outcome = block_in_place(|| {
        TestRunner::new(config).run(&vec(op(), OPERATIONS), |ops| {
            Handle::current().block_on(play(ops));
            Ok::<_, TestCaseError>(())
        })
    });
    outcome.unwrap();
    let trimmed = trims(&server).await - trimmed_by_others.into_inner();
    assert!(trimmed > CASES as usize, "{trimmed} trims");
}
