//! Every field of every command's JSON is listed in docs/json-reference.md.
