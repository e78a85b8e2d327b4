//! Microservices: one contract for every place they run in, then what each place adds.

mod contract;
mod docker;
pub mod place;
mod process;
mod proxy;
pub mod served;
