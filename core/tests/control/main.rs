//! The control machine, fed by scripts of events.

mod faults;
mod golden;
mod life;
mod script;
