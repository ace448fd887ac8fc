//! How acknowledged entries go: the head of the stream by a trim, what stands behind running ones when
//! these have ended, or at once; and never anything that runs or waits.

mod chance;

use std::ops::Range;

use bytes::Bytes;
use chasquimq_testkit::Server;

use super::support::{GROUP, ME, OTHER, Queue, done, failed, job, text, verdicts};
use crate::store::Completion;

const DELIVERED: usize = 12;
const ALL: usize = 24;
const TEN: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

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

/// The numbers of this range but these, as the values of entries.
fn names(range: Range<usize>, without: &[usize]) -> Vec<String> {
    range.filter(|n| !without.contains(n)).map(|n| n.to_string()).collect()
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

    /// All entries but these are there, all delivered ones but those are pending, so many count as lingering,
    /// and so many trims have been carried out.
    async fn check_stream(
        &self,
        gone: &[usize],
        settled: &[usize],
        lingering: usize,
        trimmed: usize,
    ) {
        let after = self.queue.dump().await;
        assert_eq!(after.values(), names(0..ALL, gone));
        let pending: Vec<_> = after.pending.iter().map(|(id, ..)| id.clone()).collect();
        let expected = (0..DELIVERED).filter(|n| !settled.contains(n));
        assert_eq!(pending, expected.map(|n| text(&self.ids[n])).collect::<Vec<_>>());
        assert_eq!(after.lingering, lingering);
        assert_eq!(trims(self.server).await, self.trims + trimmed);
    }

    /// The same, and the others are waiting.
    async fn check(&self, gone: &[usize], settled: &[usize], lingering: usize, trimmed: usize) {
        self.check_stream(gone, settled, lingering, trimmed).await;
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
    bed.check(&TEN[..8], &TEN[..8], 0, 1).await;
    assert_eq!(finish(&bed.queue, &bed.ids[..8]).await, "nnnnnnnn", "settled before");
    assert_eq!(bed.queue.dump().await.values().len(), ALL - 8);
}

#[tokio::test]
async fn finish_trims_a_stream_to_nothing() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let ids = queue.deliver(&["j"; 300]).await;
    assert_eq!(finish(&queue, &ids).await, "y".repeat(300));
    assert_eq!(trims(&server).await, 1);
    let after = queue.dump().await;
    assert_eq!(after.lingering, 0);
    assert!(after.stream.is_empty() && after.pending.is_empty() && after.odd.is_empty());
    assert_eq!(nodes(&queue).await, 0);
}

#[tokio::test]
async fn a_small_batch_is_not_worth_a_trim() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish(0..7).await, "yyyyyyy");
    bed.check(&TEN[..7], &TEN[..7], 0, 0).await;
}

#[tokio::test]
async fn out_of_memory_the_head_can_still_be_trimmed() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.queue.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(bed.finish(0..10).await, "yyyyyyyyyy");
    bed.queue.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    bed.check(&TEN, &TEN, 0, 1).await;
}

/// What was deleted by hand is not known to be gone, and counts as lingering until nothing runs.
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
                bed.check(&TEN, &TEN, 1, 1).await;
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
    bed.check(&TEN, &TEN, 3, 1).await;
}

#[tokio::test]
async fn what_stands_behind_a_running_entry_lingers_until_that_has_ended() {
    let server = Server::start().await;
    for (elsewhere, gone) in [(0, &TEN[..0]), (5, &TEN[..5])] {
        let mut bed = Bed::new(&server).await;
        bed.queue.hand_to(OTHER, &bed.ids[elsewhere]).await;
        let batch: Vec<_> = (0..10).filter(|n| *n != elsewhere).collect();
        assert_eq!(bed.finish(batch.iter().copied()).await, "yyyyyyyyy");
        let counts = bed.queue.store.inspect().await.unwrap();
        assert_eq!((counts.ready, counts.in_flight), ((ALL - DELIVERED) as u64, 3));
        bed.check_stream(gone, &batch, batch.len() - gone.len(), 1).await;
        bed.trims += 1;
        assert_eq!(bed.finish([elsewhere]).await, "y", "a small batch");
        bed.check(&TEN, &TEN, 0, 1).await;
    }
}

#[tokio::test]
async fn no_more_than_a_thousand_linger() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let ids = queue.deliver(&vec!["j"; 1_201]).await;
    for (n, batch) in ids[1..].chunks(100).enumerate() {
        assert_eq!(finish(&queue, batch).await, "y".repeat(100));
        let after = queue.dump().await;
        let lingering = (n * 100 + 100).min(1_000);
        assert_eq!(
            (after.lingering, after.stream.len()),
            (lingering, ids.len() - 100 * n - 100 + lingering)
        );
    }
    assert_eq!(trims(&server).await, 1, "none where nothing can go");
    assert_eq!(finish(&queue, &ids[..1]).await, "y");
    let after = queue.dump().await;
    assert_eq!((after.lingering, after.stream.len()), (0, 0));
    assert_eq!(nodes(&queue).await, 0);
}

#[tokio::test]
async fn a_count_of_the_wrong_type_is_replaced() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.queue.run(&["LPUSH", &bed.queue.key("lingering"), "no count"]).await;
    bed.queue.store.add(&[job("new", false)], 100, 1).await.unwrap();
    assert_eq!(bed.queue.store.inspect().await.unwrap().in_flight, DELIVERED as u64);
    assert_eq!(bed.finish(1..9).await, "yyyyyyyy");
    assert_eq!(bed.queue.dump().await.lingering, 8);
    assert_eq!(bed.finish([0]).await, "y");
    assert!(bed.queue.dump().await.odd.is_empty());
}

#[tokio::test]
async fn what_lingers_takes_no_room_of_a_bounded_queue() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish(1..11).await, "yyyyyyyyyy");
    let live = (ALL - 10) as u64;
    let new = [job("new", false)];
    let full = bed.queue.store.add(&new, live, 1).await;
    assert!(full.is_err(), "{full:?}");
    bed.queue.store.add(&new, live + 1, 1).await.unwrap();
}

#[tokio::test]
async fn a_new_group_is_given_all_that_is_there() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish(1..11).await, "yyyyyyyyyy");
    let ready = async || bed.queue.store.inspect().await.unwrap().ready;
    assert_eq!(ready().await, (ALL - DELIVERED) as u64);
    bed.queue.run(&["XGROUP", "DESTROY", &bed.queue.key("stream"), GROUP]).await;
    assert!(bed.queue.store.enter(GROUP).await.unwrap());
    assert_eq!(ready().await, ALL as u64);
}

#[tokio::test]
async fn large_entries_go_at_once() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let one = |n: usize| {
        let size = if n == 5 { 1025 } else { 0 };
        Completion { check_owner: false, size, ..done(&bed.ids[n], 1, &[0]) }
    };
    let batch: Vec<_> = (1..11).map(one).collect();
    let batch: Vec<_> = batch.iter().collect();
    let stored = bed.queue.store.finish(GROUP, ME, &batch).await.unwrap();
    assert_eq!(verdicts(&stored), "yyyyyyyyyy");
    let gone: Vec<_> = (1..11).collect();
    bed.check(&gone, &gone, 0, 0).await;
}

/// Whoever had it before must be able to tell by the entry whether it is settled.
#[tokio::test]
async fn what_was_delivered_again_goes_at_once() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let stream = bed.queue.key("stream");
    let id = text(&bed.ids[3]);
    bed.queue.run(&["XCLAIM", &stream, GROUP, ME, "0", &id]).await;
    let gone: Vec<_> = (1..11).collect();
    let batch: Vec<_> = gone.iter().map(|&n| failed(&bed.ids[n], 1, 0)).collect();
    assert_eq!(verdicts(&bed.queue.retry(&batch).await), "yyyyyyyyyy");
    assert_eq!(bed.finish(gone.iter().copied()).await, "nnnnnnnnnn", "the late one");
    bed.check(&gone, &gone, 0, 0).await;
}

#[tokio::test]
async fn retries_linger_like_all_that_ends() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let batch: Vec<_> = (1..11).map(|n| failed(&bed.ids[n], 1, 0)).collect();
    assert_eq!(verdicts(&bed.queue.retry(&batch).await), "yyyyyyyyyy");
    let gone: Vec<_> = (1..11).collect();
    bed.check(&[], &gone, 10, 1).await;
}

#[tokio::test]
async fn what_runs_behind_the_batch_stays() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.queue.hand_to(OTHER, &bed.ids[8]).await;
    assert_eq!(bed.finish(0..8).await, "yyyyyyyy");
    bed.check(&TEN[..8], &TEN[..8], 0, 1).await;
}

#[tokio::test]
async fn an_entry_between_that_was_settled_before_takes_none_along() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish([5]).await, "y");
    assert_eq!(bed.finish((0..10).filter(|n| *n != 5)).await, "yyyyyyyyy");
    bed.check(&TEN, &TEN, 0, 1).await;
}

#[tokio::test]
async fn entries_of_the_batch_that_were_settled_before_take_none_along() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish([0, 5, 9]).await, "yyy");
    assert_eq!(bed.finish(0..10).await, "nyyyynyyyn");
    bed.check(&TEN, &TEN, 0, 0).await;
}

#[tokio::test]
async fn what_lingers_goes_also_with_a_batch_that_was_settled_in_part() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    assert_eq!(bed.finish(2..10).await, "yyyyyyyy");
    assert_eq!(bed.finish([0]).await, "y");
    assert_eq!(bed.finish([0, 1]).await, "ny");
    bed.check(&TEN, &TEN, 0, 3).await;
}

/// It was delivered and is not pending, so it will not run again.
#[tokio::test]
async fn what_was_acknowledged_by_hand_goes_with_what_stands_behind_it() {
    let server = Server::start().await;
    for by_hand in [0, 5] {
        let bed = Bed::new(&server).await;
        bed.on_entry(&["XACK", GROUP], by_hand).await;
        assert_eq!(bed.finish((0..10).filter(|n| *n != by_hand)).await, "yyyyyyyyy");
        bed.check(&TEN, &TEN, 0, 1).await;
    }
}

#[tokio::test]
async fn a_second_group_keeps_its_pending_list() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    bed.second_group().await;
    assert_eq!(bed.finish(0..10).await, "yyyyyyyyyy");
    let stream = bed.queue.key("stream");
    let theirs = bed.queue.run(&["XPENDING", &stream, "second"]).await;
    assert_eq!(theirs.array()[0].int(), ALL as i64);
    bed.check(&TEN, &TEN, 0, 1).await;
}

/// Newer servers refuse to load a node of a stream without live entries.
#[tokio::test]
async fn a_stream_that_was_trimmed_and_deleted_from_can_be_loaded_again() {
    let server = Server::start().await;
    let queue = Queue::on(&server).await;
    let ids = queue.deliver(&["a value that fills the nodes of a stream"; 1_000]).await;
    let mut trimmed = 0;
    // Few are deleted at once, many linger; then what stands before them goes, in pieces.
    let batches: [Vec<usize>; 7] = [
        (0..5).collect(),
        (5..60).collect(),
        (203..210).collect(),
        (400..1_000).step_by(3).collect(),
        (60..203).collect(),
        (210..400).collect(),
        (401..600).filter(|n| (n - 400) % 3 > 0).collect(),
    ];
    for batch in batches {
        let verdicts = finish(&queue, batch.iter().map(|&n| &ids[n])).await;
        assert_eq!(verdicts, "y".repeat(batch.len()));
        let before = queue.dump().await;
        assert!(!before.stream.is_empty());
        assert_eq!(before.stream.len(), before.pending.len() + before.lingering);
        trimmed += trims(&server).await;
        server.dump().await;
        server.restart().await;
        assert_eq!(queue.dump().await, before);
    }
    assert!(trimmed > 0);
}
