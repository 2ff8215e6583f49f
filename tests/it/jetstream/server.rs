//! The server goes and comes.
