//! smart_host
