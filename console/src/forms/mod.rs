//! Text that somebody typed -> draft objects, and back with what is wrong beside each field.
//!
//! In: the pairs of a submitted form. Out: objects for the operations, or a [`FormView`] that shows the same form again.
//! Deliberately absent: any check of meaning; the compiler makes them all, so that forms, API and files agree. A form says
//! itself only what is no number, and what was left blank that it would make names of.

mod budgets;
mod bundle;
mod certificate;
mod fields;
mod filter;
mod filters;
mod listener;
mod origins;
pub(crate) mod parse;
mod prefix_set;
mod route;
mod view;

pub(crate) use budgets::SINGLE;
pub(crate) use bundle::BundleForm;
pub(crate) use certificate::{CertificateForm, Pem};
pub(crate) use fields::Fields;
pub(crate) use filter::FilterForm;
pub(crate) use filters::CHANGES;
pub(crate) use listener::{LIMITS, Limit, ListenerForm};
pub(crate) use origins::OriginForm;
pub(crate) use parse::slug;
pub(crate) use prefix_set::SetForm;
pub(crate) use route::{RouteForm, match_words};
pub(crate) use view::{FormView, Opt};
