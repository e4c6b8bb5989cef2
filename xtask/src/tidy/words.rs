//! Words that have no place in the repository: folders of a machine that it was built on, and data that
//! only the continuous integration may look for.

use super::{Fault, File, Findings};

/// Put together here, so that this file doesn't hold them.
const BESIDE: &str = concat!("..", "/shared");
const FOLDERS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/", "target"), concat!("/Us", "ers/")];

/// Looks through every line of every file.
pub fn check(files: &[File], findings: &mut Findings) {
    for file in files {
        findings.faults.extend(words_of(file));
    }
}

fn words_of(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if line.contains(BESIDE) && file.path != ".ci/run" {
            faults.push(Fault::new(&file.path, index + 1, format!("names {BESIDE}, which only .ci/run may")));
        }
        for folder in FOLDERS {
            // `{a}/…/` and `https://…/` are not folders of a machine.
            let found = line.match_indices(folder).any(|(at, _)| {
                !line[..at].ends_with(|before: char| {
                    before.is_alphanumeric() || matches!(before, '.' | '}' | '-' | '_')
                })
            });
            if found {
                faults.push(Fault::new(
                    &file.path,
                    index + 1,
                    format!("names a folder of one machine: {folder}"),
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_one_machine_is_told_and_a_part_of_an_address_is_not() {
        let check = |path: &str, text: String, expected: usize| {
            assert_eq!(words_of(&File { path: path.into(), text: text.clone() }).len(), expected, "{text}");
        };
        check("README.md", format!("see {BESIDE}/data"), 1);
        check(".ci/run", format!("see {BESIDE}/data"), 0);
        check("README.md", format!("\n`{}main`", FOLDERS[0]), 1);
        check("README.md", format!("https://example.org{}main", FOLDERS[0]), 0);
    }
}
