//! The control machine, fed by scripts of events.

mod faults;
mod life;
mod script;
