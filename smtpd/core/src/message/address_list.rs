//! address_list
