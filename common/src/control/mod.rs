//! Request and response bodies of the control interface.
