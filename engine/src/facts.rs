//! What a plan needs to know of one host and one process tree, read without touching either.
