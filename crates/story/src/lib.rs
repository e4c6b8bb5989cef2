//! Telling: what happened to one key, in sentences with evidence. Pure folds over records: the same
//! records give the same story.

pub mod find;
pub mod letters;
mod payload;
pub mod render;
mod sentence;
pub mod story;

pub use find::Secrets;
pub use letters::{Letter, LetterFilter, LetterLine, Letters, dead_letters, show};
pub use payload::ShownPayload;
pub use story::{Entry, Story, StoryOptions, story};
