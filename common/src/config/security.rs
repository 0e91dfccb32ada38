//! `security:` - the people who may give orders about one virtual server.

use super::control::Operator;
use super::section::section;

section! {
    /// The people who may give orders about this virtual server and no other.
    pub struct Security {
        /// Users, and groups written with a leading %, besides those of control.operators in
        /// mailroot.yaml; the higher role counts. A name alone is an admin. They must be able to
        /// open the control socket, as members of mailroot-operators are.
        operators: Vec<Operator> = Vec::new(), Vec::new();
    }
}
