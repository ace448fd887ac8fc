//! finish, where it may trim: the head of the stream goes at once, and never anything but the batch.

mod chance;

use std::ops::Range;

use bytes::Bytes;
use chasquimq_testkit::Server;

use super::support::{GROUP, ME, OTHER, Queue, done, text, verdicts};
use crate::store::Completion;

const DELIVERED: usize = 12;
const ALL: usize = 24;
const TEN: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// Whether the server tells what must be known before a trim.
fn can_trim(server: &Server) -> bool {
    !server.name().starts_with("redis-6")
}

/// How many trims the server has carried out.
async fn trims(server: &Server) -> usize {
    let stats = server.command(&["INFO", "commandstats"]).await.text();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xtrim:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// How many nodes the stream has.
async fn nodes(queue: &Queue<'_>) -> i64 {
    let info = queue.run(&["XINFO", "STREAM", &queue.key("stream")]).await;
    let mut pairs = info.array().chunks_exact(2);
    pairs.find(|pair| pair[0].text() == "radix-tree-keys").unwrap()[1].int()
}

/// Finishes these entries of one job each.
async fn finish<'i>(queue: &Queue<'_>, ids: impl IntoIterator<Item = &'i Bytes>) -> String {
    let one = |id| Completion { check_owner: false, ..done(id, 1, &[0]) };
    let batch: Vec<_> = ids.into_iter().map(one).collect();
    let batch: Vec<_> = batch.iter().collect();
    verdicts(&queue.store.finish(GROUP, ME, &batch).await.unwrap())
}

/// A stream whose entries are called by their numbers: the first [`DELIVERED`] of [`ALL`] are pending.
struct Bed<'s> {
    server: &'s Server,
    queue: Queue<'s>,
    ids: Vec<Bytes>,
    trims: usize,
}

impl<'s> Bed<'s> {
    async fn new(server: &'s Server) -> Self {
        let queue = Queue::on(server).await;
        let names: Vec<_> = (0..ALL).map(|n| n.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let ids = queue.deliver(&names[..DELIVERED]).await;
        for name in &names[DELIVERED..] {
            queue.run(&["XADD", &queue.key("stream"), "*", "j", name]).await;
        }
        Self { server, queue, ids, trims: trims(server).await }
    }

    /// Runs a command on the stream with the id of a delivered entry at its end; whether the server
    /// knows it.
    async fn on_entry(&self, command: &[&str], entry: usize) -> bool {
        let (stream, id) = (self.queue.key("stream"), text(&self.ids[entry]));
        let words = [&[command[0], &stream], &command[1..], &[&id]].concat();
        let reply = self.server.command(&words).await;
        let is_unknown = reply.error().is_some_and(|error| error.contains("unknown command"));
        assert!(is_unknown || reply.error().is_none(), "{words:?}: {reply:?}");
        !is_unknown
    }

    /// Another group to which everything is delivered.
    async fn second_group(&self) {
        let stream = self.queue.key("stream");
        self.queue.run(&["XGROUP", "CREATE", &stream, "second", "0"]).await;
        self.queue.run(&["XREADGROUP", "GROUP", "second", ME, "STREAMS", &stream, ">"]).await;
    }

    async fn finish(&self, entries: impl IntoIterator<Item = usize>) -> String {
        finish(&self.queue, entries.into_iter().map(|n| &self.ids[n])).await
    }

    /// All entries but these are there, all delivered ones but those are pending, the others are waiting;
    /// and so many trims have been carried out, where any is.
    async fn check(&self, gone: &[usize], settled: &[usize], trimmed: usize) {
        let names = |range: Range<usize>, without: &[usize]| {
            let kept = range.filter(|n| !without.contains(n));
            kept.map(|n| n.to_string()).collect::<Vec<_>>()
        };
        let after = self.queue.dump().await;
        assert_eq!(after.values(), names(0..ALL, gone));
        let pending: Vec<_> = after.pending.iter().map(|(id, ..)| id.clone()).collect();
        let expected = (0..DELIVERED).filter(|n| !settled.contains(n));
        assert_eq!(pending, expected.map(|n| text(&self.ids[n])).collect::<Vec<_>>());
        let expected = if can_trim(self.server) { self.trims + trimmed } else { self.trims };
        assert_eq!(trims(self.server).await, expected);
        let stream = self.queue.key("stream");
        let read = ["XREADGROUP", "GROUP", GROUP, OTHER, "STREAMS", &stream, ">"];
        let waiting = self.queue.run(&read).await;
        let waiting = waiting.array()[0].array()[1].array().iter();
        let waiting: Vec<_> = waiting.map(|entry| entry.array()[1].array()[1].text()).collect();
        assert_eq!(waiting, names(DELIVERED..ALL, gone));
    }
}

#[tokio::test]
async fn finish_trims_what_is_the_head_of_the_stream() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish((0..8).rev()).await, "yyyyyyyy", "in any order");
    bed.check(&TEN[..8], &TEN[..8], 1).await;
    assert_eq!(finish(&bed.queue, &bed.ids[..8]).await, "nnnnnnnn", "settled before");
    assert_eq!(bed.queue.dump().await.values().len(), ALL - 8);
}

#[tokio::test]
async fn finish_trims_a_stream_to_nothing() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let ids = queue.deliver(&["j"; 300]).await;
    assert_eq!(finish(&queue, &ids).await, "y".repeat(300));
    assert_eq!(trims(&server).await, usize::from(can_trim(&server)));
    let after = queue.dump().await;
    assert!(after.stream.is_empty() && after.pending.is_empty() && after.odd.is_empty());
    assert_eq!(nodes(&queue).await, 0);
}

#[tokio::test]
async fn a_small_batch_is_not_worth_a_trim() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish(0..7).await, "yyyyyyy");
    bed.check(&TEN[..7], &TEN[..7], 0).await;
}

#[tokio::test]
async fn out_of_memory_the_head_can_still_be_trimmed() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.queue.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(bed.finish(0..10).await, "yyyyyyyyyy");
    bed.queue.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    bed.check(&TEN, &TEN, 1).await;
}

#[tokio::test]
async fn nothing_goes_in_place_of_an_entry_that_others_have_deleted() {
    let server = Server::start().await;
    let deletions: &[&[&str]] = &[
        &["XDEL"],
        &["XDELEX", "KEEPREF", "IDS", "1"],
        &["XACKDEL", "second", "KEEPREF", "IDS", "1"],
    ];
    for deletion in deletions {
        for ghost in [0, 5, 9] {
            let bed = Bed::new(&server).await;
            bed.second_group().await;
            if bed.on_entry(deletion, ghost).await {
                assert_eq!(bed.finish(0..10).await, "yyyyyyyyyy");
                bed.check(&TEN, &TEN, 0).await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_goes_in_place_of_entries_that_others_have_trimmed() {
    let server = Server::start().await;
    let mut bed = Bed::new(&server).await;
    let length = (ALL - 3).to_string();
    bed.queue.run(&["XTRIM", &bed.queue.key("stream"), "MAXLEN", &length]).await;
    bed.trims += 1;
    assert_eq!(bed.finish(0..10).await, "yyyyyyyyyy");
    bed.check(&TEN, &TEN, 0).await;
}

#[tokio::test]
async fn what_runs_elsewhere_before_or_between_stays() {
    let server = Server::start().await;
    for elsewhere in [0, 5] {
        let bed = Bed::new(&server).await;
        bed.queue.hand_to(OTHER, &bed.ids[elsewhere]).await;
        let batch: Vec<_> = (0..10).filter(|n| *n != elsewhere).collect();
        assert_eq!(bed.finish(batch.iter().copied()).await, "yyyyyyyyy");
        bed.check(&batch, &batch, 0).await;
    }
}

#[tokio::test]
async fn what_runs_behind_the_batch_stays() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.queue.hand_to(OTHER, &bed.ids[8]).await;
    assert_eq!(bed.finish(0..8).await, "yyyyyyyy");
    bed.check(&TEN[..8], &TEN[..8], 1).await;
}

#[tokio::test]
async fn an_entry_between_that_was_settled_before_takes_none_along() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish([5]).await, "y");
    assert_eq!(bed.finish((0..10).filter(|n| *n != 5)).await, "yyyyyyyyy");
    bed.check(&TEN, &TEN, 0).await;
}

#[tokio::test]
async fn entries_of_the_batch_that_were_settled_before_take_none_along() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish([0, 5, 9]).await, "yyy");
    assert_eq!(bed.finish(0..10).await, "nyyyynyyyn");
    bed.check(&TEN, &TEN, 0).await;
}

#[tokio::test]
async fn a_straggler_before_the_batch_stays() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.on_entry(&["XACK", GROUP], 0).await;
    assert_eq!(bed.finish(1..11).await, "yyyyyyyyyy");
    let gone = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    bed.check(&gone, &[&[0], &gone[..]].concat(), 0).await;
}

/// It was acknowledged by hand, so it will not run again; it may go in place of one of the batch.
#[tokio::test]
async fn a_straggler_between_costs_no_entry_that_is_to_run() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.on_entry(&["XACK", GROUP], 5).await;
    assert_eq!(bed.finish((0..10).filter(|n| *n != 5)).await, "yyyyyyyyy");
    let left = if can_trim(&server) { 9 } else { 5 };
    let gone: Vec<_> = TEN.into_iter().filter(|n| *n != left).collect();
    bed.check(&gone, &TEN, 1).await;
}

#[tokio::test]
async fn a_second_group_keeps_all_but_the_batch() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.second_group().await;
    assert_eq!(bed.finish(0..10).await, "yyyyyyyyyy");
    let stream = bed.queue.key("stream");
    let theirs = bed.queue.run(&["XPENDING", &stream, "second"]).await;
    assert_eq!(theirs.array()[0].int(), ALL as i64);
    bed.check(&TEN, &TEN, 1).await;
}

/// Newer servers refuse to load a node of a stream without live entries.
#[tokio::test]
async fn a_stream_that_was_trimmed_and_deleted_from_can_be_loaded_again() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let ids = queue.deliver(&["a value that fills the nodes of a stream"; 1_000]).await;
    let batches: [Vec<usize>; 5] = [
        (0..5).collect(),
        (5..60).collect(),
        (400..1_000).step_by(3).collect(),
        (60..400).collect(),
        (450..650).filter(|n| (n - 400) % 3 > 0).collect(),
    ];
    for batch in batches {
        let verdicts = finish(&queue, batch.iter().map(|&n| &ids[n])).await;
        assert_eq!(verdicts, "y".repeat(batch.len()));
    }
    assert_eq!(trims(&server).await, usize::from(can_trim(&server)));
    let before = queue.dump().await;
    assert!(!before.stream.is_empty() && before.stream.len() == before.pending.len());
    server.dump().await;
    server.restart().await;
    assert_eq!(queue.dump().await, before);
}
