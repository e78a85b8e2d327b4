//! Wire JSON, in and out.
