//! Text that is safe to print, and columns.

/// Replaces control characters, so that a hostile name cannot drive the terminal: `\x1b`, `\n`,
/// and Unicode's bidirectional overrides.
pub fn escape(text: &str) -> String {
    let plain = |byte| matches!(byte, b' '..=b'~');
    if text.bytes().all(plain) || !text.chars().any(is_unsafe) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            c if is_unsafe(c) && u32::from(c) < 0x100 => {
                safe.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c if is_unsafe(c) => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => safe.push(c),
        }
    }
    safe
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(escape("nginx"), "nginx");
        assert_eq!(escape("\x1b[31mred\n"), "\\x1b[31mred\\n");
        assert_eq!(escape("a\u{202e}b\u{9b}"), "a\\u{202e}b\\x9b");
    }
}
