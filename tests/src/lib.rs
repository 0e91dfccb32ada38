//! The harness of the black-box tests: a daemon in a directory, real peers, accounting.
