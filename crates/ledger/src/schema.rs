//! The tables, for everyone who opens a ledger with plain `sqlite3`.
//!
//! A ledger is a folder: `catalog.db`, which alone says what is valid, and segments
//! (`segment-000001.db`, after sealing `segment-000001-sealed.db`). A file that the catalog does not name
//! means nothing. Times are milliseconds since 1970; verdicts are 0 applied, 1 skipped, 2 dead-lettered;
//! a range goes from `…from` up to but without `…to`; flags are reason codes with commas between.
//! Two views say it in words, in every segment:
//!
//! ```text
//! sqlite3 -header segment-000001.db "SELECT * FROM decisions_not_applied WHERE reason = 'unknown_sku'"
//! sqlite3 -header segment-000001.db "SELECT verdict, reason, sum(events) FROM runs GROUP BY 1, 2"
//! ```
//!
//! # In every segment
//! | table | a row is |
//! |---|---|
//! | `segment_info` | the format, the segment's number, the ledger it belongs to |
//! | `partition` | a partition of one incarnation of a flow's source; its number is the catalog's |
//! | `batch` | a batch: the order decided (`ordinal`), epoch, seq, config version, times, how far it came, the offsets it touched, how many decisions, how many of them have a row in `decision`, its identity sum |
//! | `run` | neighbouring offsets with the same fate, in the order decided, and their identity sum |
//! | `decision` | a decision that isn't a plain *applied*: everything not applied, and every correction |
//! | `gap` | positions passed over: 0 lost, 1 not-an-event, 2 unrecorded |
//! | `body` | a dead letter's bytes, headers and attempts (JSON) |
//! | `correction` | a decision (`seq`) that replaced an earlier one of the offset |
//! | `block` | packed decisions, all of them, in the format of [`codec`](crate::codec); in an open segment one a batch (`block_no` is the ordinal), in a sealed one sorted by key |
//! | `block_keys`, `block_ids` | a [filter](crate::filter) over each block's keys and ids |
//! | `stripe`, `block_range` | only in sealed segments: which ordinals were sorted together, and which stripe, partition and keys a block holds |
//!
//! # In the catalog
//! `ledger` (id, format, key of the identity hashes), `partition`, `segment` (state: 0 open, 1 closed and
//! waiting to be sealed, 2 sealed, 3 dropped), `segment_range` (what a closed segment holds of a partition: seqs,
//! offsets covered, identity sum; kept for ever), `book` (its counts by verdict and reason; kept for ever),
//! `replica` (only where the ledger is elsewhere: where, and the last entry of its log that is here), `segment_filter`, `mark` (how far each partition had come when the last segment was closed), `correction`
//! (those of sealed segments), `config`, `journal`; and `batch`, `decision`, `body` as above, with dead letters
//! carried over from dropped segments.

/// The format that this program writes.
pub(crate) const FORMAT: u32 = 1;

const PARTITION: &str = "
CREATE TABLE partition (
  partition_no INTEGER PRIMARY KEY, flow TEXT NOT NULL, source TEXT NOT NULL, partition TEXT NOT NULL,
  UNIQUE (flow, source, partition));";

/// `batch`, `decision` and `body`, the same in segments and in the catalog.
const DECISIONS: &str = "
CREATE TABLE batch (
  ordinal INTEGER PRIMARY KEY, partition_no INTEGER NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
  config INTEGER NOT NULL, taken_at INTEGER NOT NULL, decided_at INTEGER NOT NULL,
  persisted_at INTEGER NOT NULL, next_offset INTEGER NOT NULL, decided_above TEXT NOT NULL,
  offset_from INTEGER NOT NULL, offset_to INTEGER NOT NULL, decisions INTEGER NOT NULL,
  decision_rows INTEGER NOT NULL, gaps INTEGER NOT NULL, forgotten INTEGER NOT NULL DEFAULT 0,
  identity BLOB NOT NULL);
CREATE UNIQUE INDEX batch_by_seq ON batch (partition_no, seq);
CREATE INDEX batch_by_offset ON batch (partition_no, offset_from, offset_to);
CREATE TABLE decision (
  ordinal INTEGER NOT NULL, place INTEGER NOT NULL, offset INTEGER NOT NULL, event_id TEXT, key TEXT,
  payload_hash INTEGER NOT NULL, verdict INTEGER NOT NULL, reason TEXT, sentence TEXT, flags TEXT,
  attempt INTEGER NOT NULL, event_time INTEGER, origin INTEGER NOT NULL, received INTEGER NOT NULL,
  corrects_seq INTEGER, replay_id INTEGER, evidence TEXT, measures TEXT,
  PRIMARY KEY (ordinal, place)) WITHOUT ROWID;
CREATE TABLE body (
  partition_no INTEGER NOT NULL, offset INTEGER NOT NULL, payload_bytes INTEGER NOT NULL,
  headers TEXT NOT NULL, attempts TEXT NOT NULL, payload BLOB NOT NULL,
  UNIQUE (partition_no, offset));";

const SEGMENT: &str = "
CREATE TABLE segment_info (format INTEGER NOT NULL, segment_no INTEGER NOT NULL, ledger_id TEXT NOT NULL);
CREATE TABLE run (
  ordinal INTEGER NOT NULL, run_no INTEGER NOT NULL, offset_from INTEGER NOT NULL, offset_to INTEGER NOT NULL,
  verdict INTEGER NOT NULL, reason TEXT, flags TEXT, received INTEGER NOT NULL, correction INTEGER NOT NULL,
  identity BLOB NOT NULL, PRIMARY KEY (ordinal, run_no)) WITHOUT ROWID;
CREATE TABLE gap (
  ordinal INTEGER NOT NULL, gap_no INTEGER NOT NULL, offset_from INTEGER NOT NULL, offset_to INTEGER NOT NULL,
  kind INTEGER NOT NULL, cause TEXT NOT NULL, PRIMARY KEY (ordinal, gap_no)) WITHOUT ROWID;
CREATE TABLE block (block_no INTEGER PRIMARY KEY, packed BLOB NOT NULL);
CREATE TABLE block_keys (block_no INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE TABLE block_ids (block_no INTEGER PRIMARY KEY, bits BLOB NOT NULL);
CREATE VIEW decisions_not_applied AS
SELECT flow, partition, offset, event_id, key,
  CASE verdict WHEN 1 THEN 'skipped' ELSE 'dead-lettered' END AS verdict, reason, sentence, flags, attempt,
  datetime(event_time / 1000, 'unixepoch') AS event_time,
  datetime(decided_at / 1000, 'unixepoch') AS decided_at,
  config, seq, corrects_seq, evidence, source
FROM decision JOIN batch USING (ordinal) JOIN partition USING (partition_no) WHERE verdict > 0;
CREATE VIEW runs AS
SELECT flow, partition, run.offset_from, run.offset_to, run.offset_to - run.offset_from AS events,
  CASE verdict WHEN 0 THEN 'applied' WHEN 1 THEN 'skipped' ELSE 'dead-lettered' END AS verdict, reason, flags,
  received, correction, config, seq, datetime(decided_at / 1000, 'unixepoch') AS decided_at, source
FROM run JOIN batch USING (ordinal) JOIN partition USING (partition_no);";

const CORRECTION: &str = "
CREATE TABLE correction (
  partition_no INTEGER NOT NULL, offset INTEGER NOT NULL, seq INTEGER NOT NULL, replay_id INTEGER NOT NULL,
  PRIMARY KEY (partition_no, offset, seq)) WITHOUT ROWID;";

const SEALED: &str = "
CREATE TABLE stripe (stripe_no INTEGER PRIMARY KEY, ordinal_from INTEGER NOT NULL, ordinal_to INTEGER NOT NULL);
CREATE TABLE block_range (
  block_no INTEGER PRIMARY KEY, stripe_no INTEGER NOT NULL, partition_no INTEGER NOT NULL,
  decisions INTEGER NOT NULL, key_first TEXT, key_last TEXT);
CREATE INDEX block_by_stripe ON block_range (stripe_no, partition_no);";

const CATALOG: &str = "
CREATE TABLE ledger (ledger_id TEXT NOT NULL, format INTEGER NOT NULL, identity_key BLOB NOT NULL);
CREATE TABLE segment (
  segment_no INTEGER PRIMARY KEY, state INTEGER NOT NULL, file TEXT NOT NULL, ordinal_from INTEGER NOT NULL,
  ordinal_to INTEGER, bytes INTEGER NOT NULL DEFAULT 0, decided_from INTEGER, decided_to INTEGER,
  persisted_to INTEGER);
CREATE TABLE segment_range (
  segment_no INTEGER NOT NULL, partition_no INTEGER NOT NULL, seq_from INTEGER NOT NULL,
  seq_to INTEGER NOT NULL, offset_from INTEGER NOT NULL, offset_to INTEGER NOT NULL, covered TEXT NOT NULL,
  lost INTEGER NOT NULL, not_an_event INTEGER NOT NULL, unrecorded INTEGER NOT NULL, identity BLOB NOT NULL,
  PRIMARY KEY (segment_no, partition_no)) WITHOUT ROWID;
CREATE TABLE book (
  segment_no INTEGER NOT NULL, partition_no INTEGER NOT NULL, verdict INTEGER NOT NULL, reason TEXT NOT NULL,
  received INTEGER NOT NULL, correction INTEGER NOT NULL, decisions INTEGER NOT NULL,
  PRIMARY KEY (segment_no, partition_no, verdict, reason, received, correction)) WITHOUT ROWID;
CREATE TABLE segment_filter (segment_no INTEGER PRIMARY KEY, keys BLOB, ids BLOB);
CREATE TABLE mark (
  partition_no INTEGER PRIMARY KEY, seq INTEGER NOT NULL, next_offset INTEGER NOT NULL,
  decided_above TEXT NOT NULL);
CREATE TABLE config (
  version INTEGER PRIMARY KEY, hash TEXT NOT NULL, text TEXT NOT NULL, files TEXT NOT NULL,
  author TEXT NOT NULL, revision TEXT NOT NULL, since INTEGER NOT NULL);
CREATE TABLE journal (
  entry INTEGER PRIMARY KEY, kind TEXT NOT NULL, flow TEXT, what TEXT NOT NULL, at INTEGER NOT NULL,
  persisted_at INTEGER NOT NULL, detail TEXT NOT NULL);";

/// Makes a segment's tables.
pub(crate) fn segment(sealed: bool) -> String {
    [PARTITION, DECISIONS, SEGMENT, CORRECTION, if sealed { SEALED } else { "" }].concat()
}

/// Makes the catalog's tables.
pub(crate) fn catalog() -> String {
    [CATALOG, PARTITION, DECISIONS, CORRECTION].concat()
}
