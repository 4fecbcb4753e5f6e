//! The `corelane` program: everything it does is in `cli`.

mod cli;

fn main() {}
