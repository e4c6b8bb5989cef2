//! Telling: what happened to one key, in sentences with evidence. Pure folds over records.
