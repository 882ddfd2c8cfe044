//! The lifecycle state of every connection.
