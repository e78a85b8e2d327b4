//! Orders and equalities of values.
