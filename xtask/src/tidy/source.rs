//! What every Rust file must be: documented, not too long, in functions that are not too long, and
//! without `unwrap` outside tests.

use super::{Fault, File, Findings};

const FILE_LINES_GOOD: usize = 500;
const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_GOOD: usize = 60;
const FUNCTION_LINES_MAX: usize = 100;

/// Checks one file.
pub fn check(file: &File, findings: &mut Findings) {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if !first.is_some_and(|line| line.starts_with("//!")) {
        findings.faults.push(Fault::new(&file.path, 1, "starts without a word (//!) on what it is for"));
    }
    let lines = file.text.lines().count();
    tell(findings, &file.path, 1, lines, (FILE_LINES_GOOD, FILE_LINES_MAX), "the file");
    let code = without_text(&file.text);
    let tests_from = if is_test(&file.path) {
        0
    } else {
        code.lines().position(|line| line.contains("#[cfg(test)]")).unwrap_or(usize::MAX)
    };
    for function in functions(&code) {
        let what = format!("function {}", function.name);
        // A table of cases is data: long ones are told, and taken.
        let max = if function.line > tests_from { usize::MAX } else { FUNCTION_LINES_MAX };
        let limits = (FUNCTION_LINES_GOOD, max);
        tell(findings, &file.path, function.line, function.lines, limits, &what);
    }
    if tests_from > 0 {
        findings.faults.extend(unwraps(&file.path, &code));
    }
}

fn tell(
    findings: &mut Findings,
    path: &str,
    line: usize,
    lines: usize,
    (good, max): (usize, usize),
    what: &str,
) {
    let most = if max == usize::MAX { String::new() } else { format!(" and {max} the most") };
    let message = format!("{what} has {lines} lines, {good} are good{most}");
    if lines > max {
        findings.faults.push(Fault::new(path, line, message));
    } else if lines > good {
        findings.warnings.push(Fault::new(path, line, message));
    }
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Every `fn` with a body, by counting braces; comments and literals must be blank already.
fn functions(code: &str) -> Vec<Function> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let (mut depth, mut opened) = (0_i64, false);
        for (ahead, line) in lines[index..].iter().enumerate() {
            let mut over = false;
            for c in line.chars() {
                match c {
                    '{' => (depth, opened) = (depth + 1, true),
                    '}' => depth -= 1,
                    // A trait's method without a body ends here.
                    ';' if !opened && depth == 0 => over = true,
                    '[' | '(' if !opened => depth += 1,
                    ']' | ')' if !opened => depth -= 1,
                    _ => {}
                }
                if over || (opened && depth == 0) {
                    over = true;
                    break;
                }
            }
            if over {
                if opened {
                    found.push(Function { name, line: index + 1, lines: ahead + 1 });
                }
                break;
            }
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let at = line.find("fn ")?;
    let before = line[..at].trim_end();
    let starts_a_word = at == 0 || line[..at].ends_with([' ', '\t']);
    let qualifies = before.is_empty()
        || before.ends_with(')')
        || ["pub", "async", "const", "unsafe", "extern"].iter().any(|word| before.ends_with(word));
    let name: String = line[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (starts_a_word && qualifies && !name.is_empty()).then_some(name)
}

/// `.unwrap()` outside a block that `#[cfg(test)]` or `#[test]` stands before.
fn unwraps(path: &str, code: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (mut depth, mut test_from): (i64, Option<i64>) = (0, None);
    let mut test_next = false;
    for (index, line) in code.lines().enumerate() {
        if line.contains("#[cfg(test)]") || line.contains("#[test]") || line.contains("::test]") {
            test_next = true;
        }
        if line.contains(".unwrap()") && test_from.is_none() && !test_next {
            faults.push(Fault::new(
                path,
                index + 1,
                "unwrap outside a test: return an error, or expect with the reason",
            ));
        }
        for c in line.chars() {
            match c {
                '{' => {
                    if test_next && test_from.is_none() {
                        (test_from, test_next) = (Some(depth), false);
                    }
                    depth += 1;
                }
                '}' => {
                    depth -= 1;
                    if test_from.is_some_and(|from| depth <= from) {
                        test_from = None;
                    }
                }
                // `#[cfg(test)] mod tests;` or a `use`: there is no block to wait for.
                ';' if test_from.is_none() => test_next = false,
                _ => {}
            }
        }
    }
    faults
}

/// The same text with comments, strings and characters blanked out, line by line.
fn without_text(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = text_length(rest);
        let (taken, blank) = match length {
            0 => (c.len_utf8(), false),
            length => (length, true),
        };
        let (now, later) = rest.split_at(taken);
        if blank {
            out.extend(now.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(now);
            // An `r` or a quote inside a name does not start a literal.
            if c.is_alphanumeric() || c == '_' {
                let word = later.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(later.len());
                out.push_str(&later[..word]);
                rest = &later[word..];
                continue;
            }
        }
        rest = later;
    }
    out
}

/// How many bytes a comment or literal at the start of `rest` takes; 0 where there is none.
fn text_length(rest: &str) -> usize {
    let until =
        |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|after| {
            after.starts_with('"')
                || (prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"'))
        })
    });
    if let Some(prefix) = prefix {
        let hashes = rest[prefix.len()..].chars().take_while(|c| *c == '#').count();
        let body = prefix.len() + hashes + 1;
        if prefix.ends_with('r') {
            return until(body, &format!("\"{}", "#".repeat(hashes)));
        }
        return escaped(rest, body, '"');
    }
    character_length(rest)
}

/// A character literal, and not a lifetime.
fn character_length(rest: &str) -> usize {
    let body = if rest.starts_with("b'") { 2 } else { 1 };
    if !rest.starts_with('\'') && body == 1 {
        return 0;
    }
    let mut chars = rest[body..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => escaped(rest, body, '\''),
        (Some(c), Some('\'')) => body + c.len_utf8() + 1,
        _ => 0,
    }
}

fn escaped(rest: &str, from: usize, end: char) -> usize {
    let mut chars = rest[from..].char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == end {
            return from + at + 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(&File { path: "crates/x/src/a.rs".into(), text: text.into() }, &mut findings);
        findings.faults.iter().chain(&findings.warnings).map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_starts_with_what_it_is_for() {
        assert_eq!(told("//! Why.\nfn a() {}\n"), [""; 0]);
        assert_eq!(told("#![no_main]\n//! Why.\n"), [""; 0]);
        assert_eq!(told("fn a() {}\n").len(), 1);
    }

    #[test]
    fn an_unwrap_counts_only_outside_tests_and_texts() {
        let check = |body: &str, expected: usize| {
            assert_eq!(told(&format!("//! Why.\n{body}")).len(), expected, "{body}");
        };
        check("fn a() { b().unwrap() }", 1);
        check("fn a() { \"x.unwrap()\"; } // y.unwrap()", 0);
        check("fn a() { r#\"\" x.unwrap()\"#; '\"'; b().unwrap() }", 1);
        check("#[cfg(test)]\nmod tests {\n fn a() { b().unwrap() }\n}\n", 0);
        check("#[cfg(test)]\nmod tests {\n fn a() { }\n}\nfn c() { d().unwrap() }", 1);
        check("#[cfg(test)]\nmod tests;\nfn c() { d().unwrap() }", 1);
        check("#[tokio::test]\nasync fn a() {\n b().unwrap()\n}", 0);
        check("fn a<'a>(x: &'a str) { x.unwrap() }", 1);
    }

    #[test]
    fn long_functions_are_told_and_longer_ones_fail() {
        let function =
            |lines: usize| format!("//! Why.\npub fn a(b: [u8; 2])\n{{\n{}}}\n", "    b();\n".repeat(lines));
        assert_eq!(told(&function(57)), [""; 0]);
        assert_eq!(
            told(&function(58)),
            ["crates/x/src/a.rs:2: function a has 61 lines, 60 are good and 100 the most"]
        );
        let mut findings = Findings::default();
        check(&File { path: "a.rs".into(), text: function(98) }, &mut findings);
        assert_eq!(findings.faults.len(), 1);
    }

    #[test]
    fn a_trait_method_without_a_body_does_not_swallow_the_next() {
        let code = "trait T {\n    fn a(&self, b: [u8; 3]) -> u8;\n    fn c(&self) { d(); }\n}\n";
        let names: Vec<(String, usize)> = functions(code).into_iter().map(|f| (f.name, f.lines)).collect();
        assert_eq!(names, [("c".to_owned(), 1)]);
    }
}
