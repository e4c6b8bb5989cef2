//! Which fields must not be told.

use crate::expr::{FieldPath, Root};

/// The paths whose values never reach evidence or sentences.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    paths: Vec<FieldPath>,
}

impl Secrets {
    pub fn new(paths: Vec<FieldPath>) -> Self {
        Self { paths }
    }

    /// Where the flow takes a field of `meta` from a secret, that field is secret too.
    pub fn add_meta(&mut self, name: &str, taken_from: &[FieldPath]) {
        if taken_from.iter().any(|path| self.hides(path)) {
            let path = FieldPath::root(Root::Meta).then(crate::expr::Segment::Name(name.into()));
            self.paths.push(path);
        }
    }

    /// Whether a value at this path may be, or hold, a secret.
    pub fn hides(&self, path: &FieldPath) -> bool {
        self.paths.iter().any(|secret| secret.overlaps(path))
    }

    /// Whether these names, from `event` on, lead to a secret or into one.
    pub fn reached_by(&self, names: &[&str]) -> bool {
        self.paths.iter().filter(|secret| secret.root == Root::Event).any(|secret| {
            let mut of_secret = secret.names();
            let mut names = names.iter();
            loop {
                match (of_secret.next(), names.next()) {
                    (None, _) => return true,
                    (Some(_), None) => return false,
                    (Some(a), Some(b)) if a == *b => {}
                    _ => return false,
                }
            }
        })
    }
}
