//! What a run measured, and every form in which it is shown.
