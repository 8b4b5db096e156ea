//! Texts of others on a terminal, which obeys some of what it is shown.

use std::fmt::{self, Display, Formatter};

/// A text of somebody else (a policy, the name of a process) as it may be shown on a terminal: tabs as spaces, other control
/// characters, and those that turn the direction of writing, replaced.
pub(crate) struct Printable<'t>(pub(crate) &'t str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.0.chars().try_for_each(|c| match c {
            '\t' => f.write_char(' '),
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                f.write_char(char::REPLACEMENT_CHARACTER)
            }
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced() {
        let shown = |text| Printable(text).to_string();
        assert_eq!(shown("curl\u{1b}[2J\t\u{202e}x"), "curl\u{fffd}[2J \u{fffd}x");
        assert_eq!(shown("naïve ütf — ok"), "naïve ütf — ok");
    }
}
