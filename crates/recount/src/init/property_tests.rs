//! Whatever the events are, what is written is valid.
