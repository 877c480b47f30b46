//! Tests of the control machine with scripts of events.

mod faults;
mod golden;
mod life;
mod script;
