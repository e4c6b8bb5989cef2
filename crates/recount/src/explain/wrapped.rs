//! A page as a terminal shows it.

/// Lines of a page are no longer than this in a terminal.
const COLUMNS: usize = 96;

/// A page with its paragraphs and points broken at words; commands stay as they are.
pub(super) fn wrapped(page: &str) -> String {
    let mut out = String::new();
    for line in page.lines() {
        if line.starts_with("    ") || line.starts_with('|') {
            out.push_str(line);
        } else {
            let indent = if line.starts_with("- ") { "  " } else { "" };
            let mut column = 0;
            for word in line.split(' ') {
                let length = word.chars().count();
                if column > 0 && column + 1 + length > COLUMNS {
                    out.push('\n');
                    out.push_str(indent);
                    column = indent.len();
                } else if column > 0 {
                    out.push(' ');
                    column += 1;
                }
                out.push_str(word);
                column += length;
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{PAGES, explain};

    #[test]
    fn a_page_is_broken_at_words_and_its_commands_stay_whole() {
        for (code, page) in PAGES {
            let shown = explain(code, None).unwrap().render();
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&shown), words(page));
            for line in shown.lines() {
                let is_whole = line.starts_with("    ") || line.starts_with('|');
                assert!(is_whole || line.chars().count() <= COLUMNS, "{code}: {line}");
            }
            for command in page.lines().filter(|line| line.starts_with("    ")) {
                assert!(shown.lines().any(|line| line == command), "{code}: {command}");
            }
        }
    }
}
