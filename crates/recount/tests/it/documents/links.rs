//! Links within the repository.

use std::fs;
use std::path::Path;

/// The links of a page that lead nowhere.
pub fn broken(root: &Path, file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let name = file.strip_prefix(root).unwrap().display();
    let folder = file.parent().unwrap();
    let mut faults = Vec::new();
    for (number, target) in targets(&text) {
        let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
        let there = if path.is_empty() { file.to_owned() } else { folder.join(path) };
        if !there.exists() {
            faults.push(format!("{name}:{number}: {target} isn't there"));
        } else if !heading.is_empty()
            && !headings(&fs::read_to_string(there).unwrap()).contains(&heading.to_owned())
        {
            faults.push(format!("{name}:{number}: {target} has no such heading"));
        }
    }
    faults
}

/// Each link that is no address on the web, with its line.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut targets = Vec::new();
    for (index, line) in text.lines().enumerate() {
        is_code ^= line.trim_start().starts_with("```");
        // What stands between backticks is no link.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        if is_code || line.starts_with("    ") {
            continue;
        }
        for rest in prose.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                targets.push((index + 1, target.to_owned()));
            }
        }
    }
    targets
}

/// The headings of a page, as links name them.
fn headings(text: &str) -> Vec<String> {
    let of = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?.to_lowercase();
        let kept =
            title.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
        Some(kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect())
    };
    text.lines().filter_map(of).collect()
}

#[test]
fn a_link_is_found_and_its_heading_too() {
    let page =
        "see [this](a.md) and [that](b.md#what-to-do-next), `[not](this.md)`, [web](https://example.org)\n";
    assert_eq!(targets(page), [(1, "a.md".to_owned()), (1, "b.md#what-to-do-next".to_owned())]);
    assert_eq!(headings("# At 2 AM\n## `recount` says: no\n"), ["at-2-am", "recount-says-no"]);
}
