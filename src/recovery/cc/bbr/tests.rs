//! BBR step by step, against values computed by hand.
