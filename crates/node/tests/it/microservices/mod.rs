//! Microservices: one contract for every place they run in, then what each place adds.

mod contract;
mod docker;
mod place;
mod process;
