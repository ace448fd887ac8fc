//! Random changes to an input.

use rand::RngExt;
use rand::rngs::StdRng;

/// Bytes at which formats and texts change their meaning.
const EDGES: &[u8] = b"\x00\x01\x7f\x80\x90\x98\xa0\xbf\xc0\xc1\xc4\xc6\xcf\xd3\xdb\xdd\xdf\xe0\xff\n\r\t\0 :$*_@/?#%,-&=.{}[]\"'\\";
/// What formats and texts are made of.
const WORDS: &[&[u8]] = &[
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xc6\x00\x10\x00\x00",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x98\x01\x00\x00",
    b"\x91\x91\x91\x91",
    b"*\x02$\x021-*\x02",
    b"$\x01k$\x03999",
    b"redis://",
    b"redis-sentinel://",
    b"?sentinelServiceName=",
    b"%00",
    b"18446744073709551615-18446744073709551615",
    "\u{202e}é\u{2028}".as_bytes(),
];

/// An input made from one or two of those that are there, at most `longest` bytes long.
pub fn mutate(inputs: &[Vec<u8>], longest: usize, random: &mut StdRng) -> Vec<u8> {
    let any = |random: &mut StdRng| &inputs[random.random_range(0..inputs.len())];
    let mut input = any(random).clone();
    for _ in 0..random.random_range(1..=6) {
        change(&mut input, any(random), random);
        input.truncate(longest);
    }
    input
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    let at = random.random_range(0..=input.len());
    let end = (at + random.random_range(1..=16)).min(input.len());
    match random.random_range(0..9) {
        0 if at < end => input[at] ^= 1 << random.random_range(0..8),
        1 if at < end => input[at] = random.random(),
        2 if at < end => input[at] = EDGES[random.random_range(0..EDGES.len())],
        3 => input.insert(at, EDGES[random.random_range(0..EDGES.len())]),
        4 => drop(input.splice(at..at, WORDS[random.random_range(0..WORDS.len())].iter().copied())),
        5 => drop(input.drain(at..end)),
        6 => {
            let again = input[at..end].repeat(random.random_range(1..=64));
            input.splice(at..at, again);
        }
        7 => {
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => input.truncate(at.max(1)),
    }
}
