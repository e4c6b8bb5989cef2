//! Counting again: witnesses, books, statements. Never imports the engine.
