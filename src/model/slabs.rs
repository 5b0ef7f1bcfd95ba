//! The memory of a lane's members.

use crate::exec::slab;

/// Where a lane's members lie.
pub struct Slabs(slab::Slabs);

impl Slabs {
    pub fn new() -> Self {
        Self(slab::Slabs::default())
    }
    pub fn place<T>(&self, value: T) -> Placed<T> {
        Placed(self.0.place(value))
    }
    pub fn sweep(&self) {
        self.0.sweep();
    }
    pub fn slabs(&self) -> usize {
        self.0.slabs()
    }
}

/// Something in one of them.
pub struct Placed<T>(slab::Placed<T>);

impl<T: Copy> Placed<T> {
    pub fn get(&self) -> T {
        *self.0
    }
    pub fn address(&self) -> usize {
        std::ptr::from_ref(&*self.0).addr()
    }
}
