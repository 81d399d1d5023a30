//! The suite of named cases that every adapter runs.
