//! What a case is made of: operations whose numbers pick among what is there when their turn comes.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;

/// Workers that live at a time.
pub const WORKERS: usize = 3;
const OPERATIONS: usize = 60;

/// A queue, and what befalls it.
#[derive(Clone, Debug)]
pub struct Case {
    pub verbose: bool,
    pub ops: Vec<Op>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "verbose: {}", self.verbose)?;
        self.ops.iter().enumerate().try_for_each(|(n, op)| writeln!(f, "{n:2} {op:?}"))
    }
}

#[derive(Clone, Debug)]
pub enum Op {
    Add {
        jobs: Vec<Wish>,
        bound: u64,
        pack: usize,
        reply: Reply,
    },
    /// So many jobs are due that several share an entry.
    Backlog {
        count: usize,
    },
    Read {
        worker: usize,
        count: usize,
        reply: Reply,
    },
    Claim {
        worker: usize,
        count: usize,
        reply: Reply,
    },
    /// A worker fetches what it holds without knowing.
    Missed {
        worker: usize,
    },
    /// Picks are an entry in hand and a job of it.
    Settle {
        worker: usize,
        how: How,
        picks: Vec<(u8, u8)>,
        reply: Reply,
    },
    Renew {
        worker: usize,
        picks: Vec<u8>,
    },
    Promote {
        promoter: u8,
        count: usize,
    },
    Cancel {
        picks: Vec<u8>,
    },
    Replay {
        count: usize,
    },
    /// The oldest, or the oldest of these.
    Purge {
        picks: Vec<u8>,
        count: usize,
    },
    /// An earlier call arrives once more, however late.
    Again {
        call: u8,
    },
    /// A worker ends without a word; another takes its place under a name of its own.
    Die {
        worker: usize,
    },
    /// A worker's name goes, unless it holds something.
    Leave {
        worker: usize,
    },
    Janitor,
    Inspect,
    /// These leases are as old as a minute.
    LeasesRunOut {
        picks: Vec<u8>,
    },
    /// A day passes: for leases, delayed jobs and the promoter's lead.
    DayPasses,
}

/// A job to be added.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub id: Id,
    pub when: When,
}

#[derive(Clone, Copy, Debug)]
pub enum Id {
    Fresh,
    /// One of few ids that callers choose.
    Chosen(u8),
    /// One of those in doubt, added again.
    Again(u8),
}

#[derive(Clone, Copy, Debug)]
pub enum When {
    Now,
    DueAt(u16),
    In(u64),
}

/// Whether whoever asked hears what became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reply {
    Heard,
    /// It was carried out all the same.
    Lost,
    /// It was not carried out, or not yet.
    NeverSent,
}

#[derive(Clone, Copy, Debug)]
pub enum How {
    Complete,
    Retry { backoff_ms: u64 },
    Bury { keep: usize, ran: bool },
    Release,
}

pub fn case() -> impl Strategy<Value = Case> {
    (any::<bool>(), vec(op(), 1..=OPERATIONS)).prop_map(|(verbose, ops)| Case { verbose, ops })
}

fn op() -> impl Strategy<Value = Op> {
    let worker = || 0..WORKERS;
    let bound = prop_oneof![4 => Just(0), 1 => 1..8_u64];
    let add = (vec(wish(), 1..5), bound, 1..5_usize, reply(true));
    let settle = (worker(), how(), vec(any::<(u8, u8)>(), 1..6), reply(true));
    let picks = || vec(any::<u8>(), 1..6);
    prop_oneof![
        6 => add.prop_map(|(jobs, bound, pack, reply)| Op::Add { jobs, bound, pack, reply }),
        1 => (30..70_usize).prop_map(|count| Op::Backlog { count }),
        6 => (worker(), 1..6_usize, reply(false))
            .prop_map(|(worker, count, reply)| Op::Read { worker, count, reply }),
        3 => (worker(), 1..5_usize, reply(false))
            .prop_map(|(worker, count, reply)| Op::Claim { worker, count, reply }),
        2 => worker().prop_map(|worker| Op::Missed { worker }),
        14 => settle.prop_map(|(worker, how, picks, reply)| Op::Settle { worker, how, picks, reply }),
        4 => (worker(), picks()).prop_map(|(worker, picks)| Op::Renew { worker, picks }),
        5 => (0..2_u8, prop_oneof![1..8_usize, Just(100)])
            .prop_map(|(promoter, count)| Op::Promote { promoter, count }),
        1 => picks().prop_map(|picks| Op::Cancel { picks }),
        1 => (1..4_usize).prop_map(|count| Op::Replay { count }),
        1 => (vec(any::<u8>(), 0..3), 1..3_usize).prop_map(|(picks, count)| Op::Purge { picks, count }),
        5 => any::<u8>().prop_map(|call| Op::Again { call }),
        1 => worker().prop_map(|worker| Op::Die { worker }),
        1 => worker().prop_map(|worker| Op::Leave { worker }),
        1 => Just(Op::Janitor),
        1 => Just(Op::Inspect),
        3 => picks().prop_map(|picks| Op::LeasesRunOut { picks }),
        1 => Just(Op::DayPasses),
    ]
}

fn wish() -> impl Strategy<Value = Wish> {
    let id = prop_oneof![
        5 => Just(Id::Fresh),
        3 => (0..4_u8).prop_map(Id::Chosen),
        2 => any::<u8>().prop_map(Id::Again),
    ];
    let when = prop_oneof![
        5 => Just(When::Now),
        2 => any::<u16>().prop_map(When::DueAt),
        2 => Just(When::In(0)),
        1 => Just(When::In(3_600_000)),
    ];
    (id, when).prop_map(|(id, when)| Wish { id, when })
}

fn reply(may_be_unsent: bool) -> impl Strategy<Value = Reply> {
    let unsent = u32::from(may_be_unsent);
    prop_oneof![
        6 => Just(Reply::Heard),
        2 => Just(Reply::Lost),
        unsent => Just(Reply::NeverSent),
    ]
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        4 => Just(How::Complete),
        3 => prop_oneof![2 => Just(0), 1 => Just(3_600_000)]
            .prop_map(|backoff_ms| How::Retry { backoff_ms }),
        2 => (prop_oneof![3 => Just(0), 1 => 1..4_usize], any::<bool>())
            .prop_map(|(keep, ran)| How::Bury { keep, ran }),
        2 => Just(How::Release),
    ]
}
