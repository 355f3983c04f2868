//! pages
mod assets;
mod chart;
mod doors;
mod list;
mod when;
