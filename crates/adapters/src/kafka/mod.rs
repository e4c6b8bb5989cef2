//! Apache Kafka as a source, through librdkafka.
//!
//! The source id is the cluster's id and the topic's id, so a topic that is deleted and made again is another
//! source: every batch is given out only after the cluster said, *after* its records came, that the topic is
//! still the same one. Where to read from is our own record's to say; the group's committed offset is written
//! as a hint for others and never read to decide anything.
//!
//! Alone, one process reads all partitions of the topic (they are assigned, not subscribed to), and a second
//! process is kept out by the effect's own epoch, partition by partition. Where several share a ledger, each is a
//! member of the consumer group, which deals the partitions out ([`Membership`]).

mod client;
mod deal;
mod gap_causes;
mod group;
mod group_notes;
mod letter_headers;
mod letters;
mod member;
#[allow(unsafe_code)]
mod native;
#[allow(unsafe_code)]
mod native_group;
mod publisher;
mod raw_batches;
mod reader;
mod settings;
mod source;
mod watermarks;
mod witness;

pub use group::{GroupSettings, KafkaGroup, KafkaGroupWitness, Seen};
pub use group_notes::NotesError;
pub use letter_headers::{Letter, LetterHeaders};
pub use letters::{LetterSent, LetterSettings, LetterTopic};
pub use publisher::{PublishError, Receipt, TopicPublisher};
pub use settings::{BROKEN_PROMISES, KafkaBroker, KafkaError, KafkaSettings, KafkaStart, Membership, Told};
pub use source::KafkaSource;
pub use witness::KafkaSourceWitness;
