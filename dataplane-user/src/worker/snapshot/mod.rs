//! Follows the console: enrolment, the link, private keys. What the console says is believed only after [`crate::signed`].

pub mod enrol;
pub mod follow;
pub mod link;
