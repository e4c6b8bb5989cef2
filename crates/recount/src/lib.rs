//! Consumes events and says what it did with every one of them.
