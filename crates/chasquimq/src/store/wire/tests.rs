//! Whatever is written is read back, and nothing that is read can do harm.

use super::*;
use proptest::prelude::*;

fn any_retry() -> impl Strategy<Value = Option<JobRetryOverride>> {
    let spec = (
        any::<bool>(),
        any::<u64>(),
        any::<Option<u64>>(),
        any::<Option<f64>>(),
        any::<Option<u64>>(),
    )
        .prop_map(|(fixed, delay_ms, max_delay_ms, multiplier, jitter_ms)| BackoffSpec {
            kind: if fixed { BackoffKind::Fixed } else { BackoffKind::Exponential },
            delay_ms,
            max_delay_ms,
            multiplier: multiplier.filter(|m| !m.is_nan()),
            jitter_ms,
        });
    let retry = (any::<Option<u32>>(), proptest::option::of(spec))
        .prop_map(|(max_attempts, backoff)| JobRetryOverride { max_attempts, backoff });
    proptest::option::of(retry)
}

fn any_record() -> impl Strategy<Value = Record> {
    let id = prop_oneof![
        any::<u128>().prop_map(|n| ulid::Ulid(n).to_string()),
        "[a-zA-Z0-9é _-]{1,40}",
    ];
    let payload = proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    (
        any::<u32>(),
        any::<u32>(),
        id,
        "[a-zé]{0,40}",
        payload,
        any::<u64>(),
        any_retry(),
        any::<bool>(),
    )
        .prop_map(|(attempt, lost, id, name, payload, created_at_ms, retry, unique)| Record {
            attempt,
            lost,
            id: id.into(),
            name: name.into(),
            payload,
            created_at_ms,
            retry: retry.map(Box::new),
            unique,
        })
}

fn any_item() -> impl Strategy<Value = Item> {
    (any_record(), any::<Option<u64>>()).prop_map(|(record, due_ms)| {
        let raw = record.encode().into();
        Item { record, raw, due_ms }
    })
}

fn encode(Item { record, due_ms, .. }: &Item) -> Bytes {
    let bytes = record.encode();
    due_ms.map_or_else(|| bytes.clone().into(), |due_ms| with_due(&bytes, due_ms))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(written in proptest::collection::vec(any_item(), 1..6)) {
        let value: Vec<u8> = written.iter().flat_map(encode).collect();
        prop_assert_eq!(decode_all(&value.into()).unwrap(), written);
    }

    #[test]
    fn a_due_time_cut_short_is_refused(item in any_item(), due_ms in 128u64.., cut in 1usize..) {
        let whole = encode(&Item { due_ms: Some(due_ms), ..item.clone() });
        let kept = item.raw.len() + 1 + cut % (whole.len() - item.raw.len() - 1);
        prop_assert!(decode_all(&Bytes::copy_from_slice(&whole[..kept])).is_err());
    }

    #[test]
    fn new_counters_change_nothing_else(record in any_record(), attempt: u32, lost: u32) {
        let patched = with_counts(&record.encode(), attempt, lost).unwrap();
        let expected = Record { attempt, lost, ..record };
        prop_assert_eq!(patched, expected.encode());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_all(&bytes.into());
    }

    #[test]
    fn a_record_cut_short_is_refused(record in any_record(), cut in 0.0f64..1.0) {
        let bytes = record.encode();
        let keep = (bytes.len() as f64 * cut) as usize;
        prop_assert!(decode_all(&Bytes::copy_from_slice(&bytes[..keep])).is_err());
    }

    #[test]
    fn one_changed_byte_never_panics(record in any_record(), at: proptest::sample::Index, byte: u8) {
        let mut bytes = record.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode_all(&bytes.into());
    }
}

#[test]
fn unknown_options_are_passed_over() {
    let record = Record {
        attempt: 0,
        lost: 0,
        id: "a".into(),
        name: Bytes::new(),
        payload: Bytes::new(),
        created_at_ms: 1,
        retry: None,
        unique: false,
    };
    let mut bytes = record.encode();
    bytes.pop();
    bytes.extend_from_slice(&[
        0x82, 0xa1, b'x', 0x92, 0x01, 0x81, 0xa1, b'k', 0xc3, 0xa1, b'u', 0xc3,
    ]);
    let read = decode_all(&bytes.into()).unwrap();
    assert!(read[0].record.unique);
}

#[test]
fn deep_nesting_is_refused() {
    let record = Record {
        attempt: 0,
        lost: 0,
        id: "a".into(),
        name: Bytes::new(),
        payload: Bytes::new(),
        created_at_ms: 1,
        retry: None,
        unique: false,
    };
    let mut bytes = record.encode();
    bytes.pop();
    bytes.extend_from_slice(&[0x81, 0xa1, b'x']);
    bytes.extend(std::iter::repeat_n(0x91, 100_000));
    bytes.push(0xc0);
    assert_eq!(decode_all(&bytes.into()), Err(Invalid("options nested too deep")));
}

fn plain(id: &str) -> Vec<u8> {
    let id = id.to_owned();
    let (name, payload) = (Bytes::new(), Bytes::from_static(&[0xc0]));
    let record = Record {
        attempt: 0,
        lost: 0,
        id: id.into(),
        name,
        payload,
        created_at_ms: 1,
        retry: None,
        unique: false,
    };
    record.encode()
}

/// The parts as ids of jobs, and as the bytes of what is broken.
fn parts(value: &[u8]) -> Vec<Result<String, Vec<u8>>> {
    let part = |part: Result<Item, Broken>| match part {
        Ok(item) => Ok(item.record.id.as_ref().into()),
        Err(broken) => Err(broken.raw.to_vec()),
    };
    take_apart(&Bytes::copy_from_slice(value)).into_iter().map(part).collect()
}

#[test]
fn a_record_that_cannot_be_read_costs_the_others_nothing() {
    let (a, b) = (plain("a"), plain("b"));
    let mut newer = plain("c");
    newer[1] = FORMAT + 1;
    let (one, two) = (Ok("a".to_owned()), Ok("b".to_owned()));
    let value = [&a[..], &newer, &b].concat();
    assert_eq!(parts(&value), [one.clone(), Err(newer.clone()), two.clone()]);
    let newer_and_due = with_due(&newer, 5_000_000);
    let value = [&newer_and_due[..], &b].concat();
    assert_eq!(parts(&value), [Err(newer_and_due.to_vec()), two]);
    // Nothing tells where these end.
    for tail in [&b[..b.len() - 1], b"\xa4text", &[0xc1], &[0xdd, 0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(parts(&[&a[..], tail].concat()), [one.clone(), Err(tail.to_vec())]);
    }
    assert_eq!(parts(b"garbage"), [Err(b"garbage".to_vec())]);
    assert_eq!(parts(b""), [Err(vec![])]);
}

#[test]
fn the_records_of_an_entry_are_counted() {
    let most = parts(&[0x90].repeat(1_000_000));
    assert_eq!(most.len(), MAX_RECORDS + 1);
    assert_eq!(most[MAX_RECORDS].as_ref().unwrap_err().len(), 1_000_000 - MAX_RECORDS);
}

proptest! {
    #[test]
    fn the_parts_of_an_entry_are_all_its_bytes(
        pieces in proptest::collection::vec(
            prop_oneof![
                any_item().prop_map(|item| encode(&item).to_vec()),
                proptest::collection::vec(any::<u8>(), 0..60),
            ],
            1..6,
        ),
    ) {
        let value: Vec<u8> = pieces.concat();
        let mut rebuilt = Vec::new();
        for part in take_apart(&value.clone().into()) {
            match part {
                Ok(item) => {
                    rebuilt.extend_from_slice(&item.raw);
                    // A due time may be written in more bytes than it takes.
                    let due = value[rebuilt.len()..].len();
                    if item.due_ms.is_some() {
                        let mut rest = &value[rebuilt.len()..];
                        let read: Result<u64, _> = de::read_int(&mut rest);
                        prop_assert_eq!(read.ok(), item.due_ms);
                        let start = rebuilt.len();
                        rebuilt.extend_from_slice(&value[start..start + due - rest.len()]);
                    }
                }
                Err(broken) => rebuilt.extend_from_slice(&broken.raw),
            }
        }
        prop_assert_eq!(rebuilt, value);
    }
}
