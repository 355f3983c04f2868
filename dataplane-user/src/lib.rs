//! Sallyport's node: one executable, two processes.
//!
//! The [`keeper`] holds the privileges; the [`worker`] meets the hostile bytes; [`handover`] is all they say to each
//! other. Where no service manager does, a third process [`hold`]s their sockets. `worker` never imports `keeper`. [`signed`] is what both ask before they believe a snapshot.

pub mod handover;
pub mod hold;
pub mod keeper;
pub mod operate;
pub mod signed;
pub mod worker;

/// An error with its causes, as one sentence for people.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
