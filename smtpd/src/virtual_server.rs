//! virtual_server
