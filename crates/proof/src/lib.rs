//! Exhaustive proofs, for small sizes, of the two places where a migration is won or lost: the merge rule
//! ([`merge`]) and the apply protocol ([`apply`]).
//!
//! The models play the source, the target, the disk and the crashes. The merge model drives the product's own pure
//! functions: `engine::merge`, `engine::fold`, `engine::plan`, `model::Cut` and `model::xid`; the apply model states a
//! protocol that lies in asynchronous code, each step with the function that it stands for. [`check`] explores every
//! state within the bounds of [`sizes`], and again with each rule of [`rules`] removed, where something must break.

pub mod apply;
pub mod check;
pub mod merge;
pub mod row;
pub mod rules;
pub mod script;
pub mod sizes;
pub mod source;
pub mod target;
