//! Everything heavy: sources, databases, HTTP handlers.
