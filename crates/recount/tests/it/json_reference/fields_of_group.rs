//! What is told only where there is a broker: of an observed consumer's group, and of a topic for dead letters.

use super::fields::Field;

/// Of `recount run`, `audit` and `status` alike. What lies below occurs only where there is a broker.
pub const GROUP: &[Field] = &[
    (
        "flows[].group",
        "The group of an observed consumer on Kafka; `null` where none is declared, or it can't be asked.",
    ),
    ("flows[].group.group", "Its name."),
    (
        "flows[].group.status",
        "The worst of its partitions by Burrow's rules: `OK`, `WARN` or `ERR`; `learning` until it was looked at for as long as its window.",
    ),
    ("flows[].group.sentence", "How it stands, for people."),
    ("flows[].group.members", "Its members now; `null` where that can't be told."),
    ("flows[].group.window_ms", "How far back its status looks."),
    ("flows[].group.published", "Positions that the source holds or held."),
    ("flows[].group.committed", "Of those, how many lie below what it has committed."),
    ("flows[].group.lag", "Of those, how many do not."),
    ("flows[].group.partitions", "Each partition of the topic."),
    ("flows[].group.partitions[].partition", "Its name."),
    (
        "flows[].group.partitions[].status",
        "`OK`, `learning`, `WARN`, `STALL` (members, and no progress), `STOP` (no members, and no progress) or `REWIND`.",
    ),
    ("flows[].group.partitions[].committed", "What the group has committed; `null` where it has nothing."),
    ("flows[].group.partitions[].end", "The offset after the partition's last."),
    ("flows[].group.partitions[].lag", "What lies between."),
    ("flows[].group.moves", "The latest committed offsets that were moved otherwise than by going on."),
    ("flows[].group.moves[].at", "When it was seen."),
    ("flows[].group.moves[].partition", "The partition."),
    ("flows[].group.moves[].kind", "`back`, `forward` (while nobody was in the group) or `gone`."),
    ("flows[].group.moves[].from", "What was committed before."),
    ("flows[].group.moves[].to", "What was committed then; `null` where it is gone."),
    ("flows[].group.moves[].sentence", "The same for people."),
];

/// Of `recount status`.
pub const LETTER_TOPIC: &[Field] = &[
    (
        "flows[].dead_letter_topic",
        "The topic that they are sent to (`dead_letters`); `null` where there is none.",
    ),
    ("flows[].dead_letter_topic.topic", "The topic and its broker."),
    ("flows[].dead_letter_topic.sentence", "All of it, for people."),
    ("flows[].dead_letter_topic.waiting", "On record, and not sent."),
    ("flows[].dead_letter_topic.sent", "Acknowledged by the topic's cluster."),
    ("flows[].dead_letter_topic.refused", "Refused by it for good; the ledger keeps them."),
    ("flows[].dead_letter_topic.forgotten", "Forgotten by the ledger before they were sent."),
    ("flows[].dead_letter_topic.trouble", "Why none could be sent of late; `null` where nothing is wrong."),
    ("flows[].dead_letter_topic.trouble_since", "Since when."),
];

/// Whether a field occurs only where there is a broker.
pub fn needs_broker(listed: &str) -> bool {
    listed.starts_with("flows[].group.") || listed.starts_with("flows[].dead_letter_topic.")
}
