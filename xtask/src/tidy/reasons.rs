//! Each built-in reason code has a page, and each page has a code.

use super::{Fault, File, Findings};
use recount_model::reason::BUILTINS;

const SOURCE: &str = "crates/model/src/reason.rs";

/// Compares the codes that the model declares with the pages under `docs/reasons/`.
pub fn check(files: &[File], findings: &mut Findings) {
    let codes: Vec<&str> = BUILTINS.iter().map(|builtin| builtin.code).collect();
    findings.faults.extend(compare(&codes, files));
}

fn compare(codes: &[&str], files: &[File]) -> Vec<Fault> {
    let pages: Vec<(&str, &File)> = files
        .iter()
        .filter_map(|file| {
            let code = file.path.strip_prefix("docs/reasons/")?.strip_suffix(".md")?;
            (code != "README").then_some((code, file))
        })
        .collect();
    let source = files.iter().find(|file| file.path == SOURCE).map_or("", |file| file.text.as_str());
    let mut faults = Vec::new();
    for code in codes {
        let quoted = format!("\"{code}\"");
        let line = source.lines().position(|line| line.contains(&quoted)).map_or(0, |n| n + 1);
        match pages.iter().find(|(page, _)| page == code) {
            None => {
                faults.push(Fault::new(SOURCE, line, format!("{code} has no page docs/reasons/{code}.md")))
            }
            Some((_, page)) if !page.text.contains(code) => {
                faults.push(Fault::new(&page.path, 1, format!("does not name its code {code}")));
            }
            Some(_) => {}
        }
    }
    for (page, file) in pages {
        if !codes.contains(&page) {
            faults.push(Fault::new(&file.path, 1, format!("{page} is no built-in reason code")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_without_a_page_and_a_page_without_a_code_are_told() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [
            file(SOURCE, "\n A = \"with_page\";\n B = \"without\";"),
            file("docs/reasons/with_page.md", "# with_page"),
            file("docs/reasons/retired.md", "# retired"),
            file("docs/reasons/README.md", "all of them"),
        ];
        let told: Vec<String> =
            compare(&["with_page", "without"], &files).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "crates/model/src/reason.rs:3: without has no page docs/reasons/without.md",
                "docs/reasons/retired.md:1: retired is no built-in reason code",
            ]
        );
    }
}
