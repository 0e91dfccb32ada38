//! The configuration of the service and of its virtual servers.
