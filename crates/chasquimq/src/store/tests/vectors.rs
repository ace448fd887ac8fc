//! The frozen examples in `tests/vectors`, which other languages read too.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::support::{GROUP, ME, Queue, done, failed, hopeless, job, unrun};
use crate::job::{BackoffKind, BackoffSpec, JobRetryOverride};
use crate::store::wire::{Item, Record, decode_all, with_due};
use crate::store::{Active, Due, Replay, Search};

const RECORDS: &str = include_str!("../../../../../tests/vectors/records.json");
const EVENTS: &str = include_str!("../../../../../tests/vectors/events.json");

fn list(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap()
}

fn unhex(hex: &Value) -> Bytes {
    let digits = hex.as_str().unwrap().as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

fn count(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn retry(value: &Value) -> JobRetryOverride {
    let backoff = |value: &Value| BackoffSpec {
        kind: match value["kind"].as_str().unwrap() {
            "fixed" => BackoffKind::Fixed,
            _ => BackoffKind::Exponential,
        },
        delay_ms: value["delay_ms"].as_u64().unwrap(),
        max_delay_ms: value["max_delay_ms"].as_u64(),
        multiplier: value["multiplier"].as_f64(),
        jitter_ms: value["jitter_ms"].as_u64(),
    };
    JobRetryOverride {
        max_attempts: value["max_attempts"].as_u64().map(|n| n.try_into().unwrap()),
        backoff: value["backoff"].as_object().map(|_| backoff(&value["backoff"])),
    }
}

fn item(value: &Value) -> Item {
    let record = Record {
        attempt: count(&value["attempt"]),
        lost: count(&value["lost"]),
        id: value["id"].as_str().unwrap().into(),
        name: value["name"].as_str().unwrap().to_owned().into(),
        payload: unhex(&value["payload_hex"]),
        created_at_ms: value["created_at_ms"].as_u64().unwrap(),
        retry: value["retry"].as_object().map(|_| Box::new(retry(&value["retry"]))),
        unique: value["unique"].as_bool().unwrap(),
    };
    let raw = record.encode().into();
    Item { record, raw, due_ms: value["due_ms"].as_u64() }
}

fn write(Item { record, due_ms, .. }: &Item) -> Bytes {
    let bytes = record.encode();
    due_ms.map_or_else(|| bytes.clone().into(), |due_ms| with_due(&bytes, due_ms))
}

#[test]
fn records_are_read_and_written_as_the_vectors_say() {
    let (mut valid, mut invalid) = (0, 0);
    for vector in list(RECORDS) {
        let (name, value) = (&vector["name"], unhex(&vector["hex"]));
        let read = decode_all(&value);
        if let Some(error) = vector["error"].as_str() {
            assert_eq!(read.unwrap_err().0, error, "{name}");
            invalid += 1;
            continue;
        }
        let read = read.unwrap();
        let expected: Vec<_> = vector["records"].as_array().unwrap().iter().map(item).collect();
        let meaning = |items: &[Item]| -> Vec<_> {
            items.iter().map(|item| (item.record.clone(), item.due_ms)).collect()
        };
        assert_eq!(meaning(&read), meaning(&expected), "{name}");
        let canonical = vector["canonical"].as_bool().unwrap();
        let written: Vec<u8> = read.iter().flat_map(write).collect();
        assert_eq!(written == value, canonical, "{name}");
        if canonical {
            assert_eq!(read, expected, "{name}: the slices are the records' bytes");
        }
        let slices: Vec<u8> = read.iter().flat_map(|item| item.raw.clone()).collect();
        let again = decode_all(&slices.into()).unwrap().into_iter().map(|item| item.record);
        let records: Vec<_> = read.into_iter().map(|item| item.record).collect();
        assert_eq!(again.collect::<Vec<_>>(), records, "{name}: a slice is a record by itself");
        valid += 1;
    }
    assert!(valid >= 25 && invalid >= 25, "{valid} {invalid}");
}

/// Makes every event happen once, in the order of the file.
async fn make_everything_happen(queue: &Queue<'_>) {
    let store = &queue.store;
    let delivered = queue.deliver(&["a", "b", "c", "d", "e"]).await;
    store.add(&[job("job-add", true)], 0, 1).await.unwrap();
    store.schedule(&[(job("job-schedule", false), Due::In(60_000))], 0).await.unwrap();
    store.cancel(&["job-schedule".to_owned()]).await.unwrap();
    queue.run(&["ZADD", &queue.key("delayed"), "1", "job-due"]).await;
    queue.run(&["HSET", &queue.key("jobs"), "job-due", "record"]).await;
    store.promote("p-1", Duration::from_secs(5), 10).await.unwrap();
    store.tell_active(&[Active { id: "job-0", name: "send", run: 1 }]).await.unwrap();
    queue.complete(&[done(&delivered[0], 1, &[0])]).await;
    queue.retry(&[failed(&delivered[1], 1, 0)]).await;
    queue.bury(&[hopeless(&delivered[2], 1, 0)]).await;
    queue.release(&[unrun(&delivered[3], 1, &[0])]).await;
    let dlq_id = store.dead(&mut Search::new(vec![]), 1).await.unwrap().remove(0).dlq_id;
    store.replay(&[Replay { dlq_id, job: job("job-replay", false) }]).await.unwrap();
    queue.run(&["XADD", &queue.key("dlq"), "*", "id", "job-dead", "n", "send"]).await;
    store.purge(&mut Search::new(vec![]), 1).await.unwrap();
    store.finish(GROUP, ME, &[&done(&delivered[4], 2, &[0, 1])]).await.unwrap();
}

#[tokio::test]
async fn events_are_written_as_the_vectors_say() {
    let queue = Queue::verbose().await;
    make_everything_happen(&queue).await;
    let mut written = queue.dump().await.events;
    // A job that is buried after a run has failed that run, too.
    let buried = written.iter().position(|event| event.starts_with("e=dlq ")).unwrap();
    assert!(written.remove(buried - 1).starts_with("e=failed id=job-0 n=send attempt=3 "));
    let expected = list(EVENTS).into_iter().map(|vector| {
        let fields = vector["fields"].as_array().unwrap();
        assert_eq!(fields[0][1], vector["event"]);
        assert_eq!([&fields[0][0], &fields[1][0], &fields[2][0]], ["e", "id", "n"]);
        let field = |f: &Value| format!("{}={}", f[0].as_str().unwrap(), f[1].as_str().unwrap());
        fields.iter().map(field).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(written, expected.collect::<Vec<_>>());
}
