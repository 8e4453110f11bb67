//! Which models may be in memory together: what a model needs, what the devices give, and who has to leave.
//!
//! [`plan`] decides on plain numbers. [`footprint`] is what a model takes on each device, [`dry_run`] measures
//! it without allocating, [`allocated`] reads what a real load took, [`budget`] turns devices into what models
//! may hold, [`verdict`] puts a decision into words, and [`keeper`] unloads what nobody has used for long.

pub mod allocated;
pub mod budget;
pub mod dry_run;
pub mod footprint;
pub mod keeper;
pub mod offload;
pub mod plan;
pub mod verdict;
