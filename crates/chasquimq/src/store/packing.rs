//! Events of a kind of which several stand in one entry: each field holds a line for each.

use super::transport::{Arg, bytes};

/// A field of such an entry: what `write` writes of each item, joined by line ends.
pub(super) fn column<T>(items: &[T], write: impl Fn(&T, &mut Vec<u8>)) -> Arg {
    let mut column = Vec::with_capacity(items.len() * 4);
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            column.push(b'\n');
        }
        write(item, &mut column);
    }
    bytes(&column.into())
}

/// Whether a text can be one of several in a field.
pub(super) fn is_line(text: &[u8]) -> bool {
    !text.contains(&b'\n')
}

/// Writes a number.
pub(super) fn decimal(number: u64, to: &mut Vec<u8>) {
    to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
