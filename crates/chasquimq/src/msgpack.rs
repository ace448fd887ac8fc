//! PURE: how long a msgpack value is, told without recursion and without believing a length.
//!
//! Decoders recurse as deep as the bytes say, and some take memory for as many items as the bytes
//! announce. What has passed [`measure`] nests no deeper than was allowed, and every length in it is
//! backed by bytes that are there.

/// How deep lists and maps may nest in a payload: `[[1]]` nests two deep.
pub const MAX_PAYLOAD_DEPTH: usize = 64;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Invalid(pub &'static str);

pub(crate) const CUT_SHORT: Invalid = Invalid("cut short");
pub(crate) const TOO_DEEP: Invalid = Invalid("nested too deep");

/// Checks that a payload is one msgpack value that no decoder can choke on.
///
/// # Errors
/// [`Invalid`] when it nests deeper than [`MAX_PAYLOAD_DEPTH`], announces more than it holds, or has
/// bytes before its end that belong to no value.
pub fn check_payload(payload: &[u8]) -> Result<(), Invalid> {
    if measure(payload, MAX_PAYLOAD_DEPTH)? == payload.len() {
        Ok(())
    } else {
        Err(Invalid("more than one value"))
    }
}

/// The length in bytes of the first value, whose lists and maps nest at most `deepest` deep, and never
/// deeper than [`MAX_PAYLOAD_DEPTH`].
pub(crate) fn measure(bytes: &[u8], deepest: usize) -> Result<usize, Invalid> {
    // Values to come in each list or map that is open. On the stack: every job comes by here twice.
    let mut open = [0u64; MAX_PAYLOAD_DEPTH];
    let (mut depth, mut at) = (0, 0);
    loop {
        let Head { len, values } = Head::read(bytes.get(at..).unwrap_or_default())?;
        let left = (bytes.len() - at).checked_sub(len).ok_or(CUT_SHORT)?;
        at += len;
        // Every value takes a byte at least.
        if values > left as u64 {
            return Err(CUT_SHORT);
        }
        if values > 0 {
            if depth == deepest.min(MAX_PAYLOAD_DEPTH) {
                return Err(TOO_DEEP);
            }
            open[depth] = values;
            depth += 1;
            continue;
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return Ok(at);
        }
    }
}

/// The beginning of a value: its own bytes, and how many values follow as its content.
struct Head {
    len: usize,
    values: u64,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, Invalid> {
        let first = *bytes.first().ok_or(CUT_SHORT)?;
        let text = |width: usize| Ok(Self { len: 1 + width + length(bytes, width)?, values: 0 });
        let items = |width: usize, each: u64| {
            Ok(Self { len: 1 + width, values: each * length(bytes, width)? as u64 })
        };
        let fixed = |len: usize| Ok(Self { len, values: 0 });
        match first {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => fixed(1),
            0x80..=0x8f => Ok(Self { len: 1, values: 2 * u64::from(first & 0x0f) }),
            0x90..=0x9f => Ok(Self { len: 1, values: u64::from(first & 0x0f) }),
            0xa0..=0xbf => fixed(1 + usize::from(first & 0x1f)),
            0xc1 => Err(Invalid("a byte that msgpack does not use")),
            0xc4 | 0xd9 => text(1),
            0xc5 | 0xda => text(2),
            0xc6 | 0xdb => text(4),
            // Extensions have a byte for their type.
            0xc7..=0xc9 => text(1 << (first - 0xc7)).map(|head| Self { len: head.len + 1, ..head }),
            0xcc | 0xd0 => fixed(2),
            0xcd | 0xd1 => fixed(3),
            0xca | 0xce | 0xd2 => fixed(5),
            0xcb | 0xcf | 0xd3 => fixed(9),
            0xd4..=0xd8 => fixed(2 + (1 << (first - 0xd4))),
            0xdc => items(2, 1),
            0xdd => items(4, 1),
            0xde => items(2, 2),
            0xdf => items(4, 2),
        }
    }
}

/// The big-endian number of `width` bytes behind the first.
fn length(bytes: &[u8], width: usize) -> Result<usize, Invalid> {
    let digits = bytes.get(1..=width).ok_or(CUT_SHORT)?;
    Ok(digits.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,300}".prop_map(Value::from),
        ];
        leaf.prop_recursive(8, 200, 40, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..40).prop_map(Value::from),
                proptest::collection::hash_map(".{0,40}", inner, 0..40).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_an_encoder_writes_passes(value in any_json()) {
            prop_assert_eq!(check_payload(&rmp_serde::to_vec_named(&value).unwrap()), Ok(()));
        }

        #[test]
        fn what_is_cut_short_is_refused(value in any_json(), cut in 0.0f64..1.0) {
            let bytes = rmp_serde::to_vec_named(&value).unwrap();
            let keep = (bytes.len() as f64 * cut) as usize;
            prop_assert!(check_payload(&bytes[..keep]).is_err());
        }

        #[test]
        fn what_passes_has_bytes_for_all_that_it_announces(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(len) = measure(&bytes, MAX_PAYLOAD_DEPTH) {
                prop_assert!((1..=bytes.len()).contains(&len));
                // rmp-serde agrees on where the value ends, unless it refuses its text or its keys.
                let mut rest = &bytes[..];
                if rmp_serde::from_read::<_, serde::de::IgnoredAny>(&mut rest).is_ok() {
                    prop_assert_eq!(bytes.len() - rest.len(), len);
                }
            }
        }
    }

    #[test]
    fn the_depth_is_bounded_for_lists_and_maps() {
        for (open, leaf) in [(&[0x91][..], &[0xc0][..]), (&[0x81, 0xa1, b'k'], &[0xc0])] {
            let nested = |depth: usize| [open.repeat(depth), leaf.to_vec()].concat();
            assert_eq!(check_payload(&nested(64)), Ok(()));
            assert_eq!(check_payload(&nested(65)), Err(TOO_DEEP));
            assert_eq!(check_payload(&nested(1_000_000)), Err(TOO_DEEP));
        }
    }

    #[test]
    fn announced_lengths_are_not_believed() {
        for head in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
            assert_eq!(check_payload(&[head, 0xff, 0xff, 0xff, 0xff, 1]), Err(CUT_SHORT));
        }
        let lists_in_lists = [0xdd, 0x00, 0x00, 0x01, 0x00].repeat(60);
        assert_eq!(check_payload(&lists_in_lists), Err(CUT_SHORT));
    }

    #[test]
    fn every_kind_of_value_is_measured() {
        let sizes: &[(&[u8], usize)] = &[
            (&[0x7f], 1),
            (&[0xe0], 1),
            (&[0xa2, b'a', b'b'], 3),
            (&[0xc4, 1, 0], 3),
            (&[0xc5, 0, 1, 0], 4),
            (&[0xc7, 1, 5, 0], 4),
            (&[0xc8, 0, 1, 5, 0], 5),
            (&[0xc9, 0, 0, 0, 1, 5, 0], 7),
            (&[0xd4, 5, 0], 3),
            (&[0xd8, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 18),
            (&[0xcb, 0, 0, 0, 0, 0, 0, 0, 0], 9),
            (&[0xdc, 0, 1, 0xc3], 4),
            (&[0xde, 0, 1, 0xa0, 0xc2], 5),
            (&[0x80], 1),
        ];
        for (bytes, len) in sizes {
            assert_eq!(measure(bytes, 1), Ok(*len), "{bytes:x?}");
            assert_eq!(measure(&[*bytes, b"rest"].concat(), 1), Ok(*len), "{bytes:x?}");
        }
        assert!(measure(&[0xc1], 1).is_err() && measure(&[], 1).is_err());
        assert_eq!(check_payload(&[1, 2]), Err(Invalid("more than one value")));
    }
}
