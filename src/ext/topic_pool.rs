//! Topic pools: named topics under one parent.
