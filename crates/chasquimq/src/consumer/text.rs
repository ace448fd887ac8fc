//! PURE: what a handler said went wrong, as it is stored and shown.

use crate::lifecycle::Outcome;

/// The longest error text that is stored, in bytes.
const MOST: usize = 8 * 1024;

/// The error text of an outcome: its first 8 KiB, with a space for each character that moves the
/// cursor or the reading order of whoever shows it. Line ends and tabs stay: tracebacks have them.
pub(crate) fn error_text(outcome: &Outcome) -> String {
    let text = match outcome {
        Outcome::Failed { error, .. } | Outcome::Rejected { error, .. } => error.as_str(),
        Outcome::Done | Outcome::Interrupted => "",
    };
    let printable = |c: char| if is_control(c) { ' ' } else { c };
    text[..text.floor_char_boundary(MOST)].chars().map(printable).collect()
}

fn is_control(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Line and paragraph separators, and what turns the direction of writing.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(error: &str) -> String {
        let error = error.to_owned();
        error_text(&Outcome::Failed { panicked: false, unrecoverable: false, error })
    }

    #[test]
    fn control_characters_become_spaces_and_lines_stay() {
        assert_eq!(stored("a\x1b[31m\r\nb\0\tc\u{7f}\u{9b}\u{202e}d"), "a [31m \nb \tc   d");
    }

    proptest! {
        #[test]
        fn whatever_a_handler_says_is_capped_and_printable(error in any::<String>(), times in 1usize..3000) {
            let text = stored(&error.repeat(times));
            prop_assert!(text.len() <= MOST);
            prop_assert!(text.chars().all(|c| !is_control(c)));
        }
    }
}
