//! badmail
