//! line_ends
