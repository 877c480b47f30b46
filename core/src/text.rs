//! Text from outside: from peers, files and command lines, which may hold anything.
//!
//! Whoever shows such text, in a log, an error, an event, a table or JSON, must not let it move the cursor, colour the
//! screen, begin a line, turn the direction of writing or fill pages. So it is cleaned once, where it enters: all that
//! peers send in [`proto::convert`](https://docs.rs/millefeuille-proto), and every [`Failure`](crate::failure::Failure)
//! where it is made.

/// The longest name, in characters: a host, a kernel, a version, a processor.
pub const NAME: usize = 200;
/// The longest sentence, in characters: a reason, what is wrong. A path may have 4,096 bytes.
pub const SENTENCE: usize = 4_500;

/// Stands for what was cut off.
const CUT: char = '…';

/// The text on one line of at most `most` characters. Each run of line breaks, tabs and [hidden](is_hidden) characters
/// becomes a space.
pub fn cleaned(text: &str, most: usize) -> String {
    // What comes after so many bytes is cut off in any case, unless nearly all of it is hidden.
    let enough = text.floor_char_boundary(text.len().min(16 * (most + 1)));
    let mut line = String::new();
    let mut gap = false;
    for c in text[..enough].chars() {
        if is_hidden(c) {
            gap = !line.is_empty();
            continue;
        }
        if gap && c != ' ' && !line.ends_with(' ') {
            line.push(' ');
        }
        gap = false;
        line.push(c);
    }
    let whole = enough == text.len() && line.chars().count() <= most;
    if whole { line } else { line.chars().take(most.saturating_sub(1)).chain([CUT]).collect() }
}

/// The first `most` characters.
pub fn beginning(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

/// Whether a character shows nothing itself and changes how others are shown: control characters, line and paragraph
/// separators, marks of direction (such as U+202E, which turns what follows around), joiners, tags.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["", "Haswell", "Größe: 3 µm", "数 3", "a-b_c/d.e [x]", "host:1"] {
            assert_eq!(cleaned(text, NAME), text);
        }
    }

    #[test]
    fn nothing_that_controls_a_terminal_is_left() {
        assert_eq!(cleaned("a\nerror: b\r\n\tc", NAME), "a error: b c");
        assert_eq!(cleaned("\u{1b}[31mred\u{1b}[0m\u{7}", NAME), "[31mred [0m");
        assert_eq!(cleaned("a\u{9b}2Jb\u{2028}c", NAME), "a 2Jb c");
        assert_eq!(cleaned("abc\u{202e}fed\u{2069}", NAME), "abc fed");
        assert_eq!(cleaned("\u{feff}\u{200b}", NAME), "");
        assert_eq!(cleaned("two  spaces\n in a path", NAME), "two  spaces in a path");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cleaned("ääää", 4), "ääää");
        assert_eq!(cleaned("äääää", 4), "äää…");
        assert_eq!(cleaned(&"é".repeat(150_000), NAME).chars().count(), NAME);
        assert_eq!(cleaned(&"\n".repeat(150_000), NAME), "…");
        assert_eq!(beginning("0123456789aéb", 12), "0123456789aé");
        assert_eq!(beginning("short", 12), "short");
    }
}
