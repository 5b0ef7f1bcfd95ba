//! The memory of a lane's members: a word of free blocks, slabs that go when they are empty.
#![cfg(loom)]

use loom_tests::{Model, Watched, spawn};
use stasis_bus::model::Slabs;
use std::sync::Arc;

/// Promise: a block is given out again only after its last user has let go, and no block that is given back is lost.
/// Mutations: `fetch_or` in `give_back` Relaxed; load in `take` Relaxed; `take` as a load and a store.
#[test]
fn a_block_has_one_user_at_a_time() {
    Model::new("a_block_has_one_user_at_a_time").preemptions(3).check(|| {
        let slabs = Slabs::new();
        let uses = Arc::new(Watched::new(0));
        let (one, other) = (slabs.place(1_u64), slabs.place(2_u64));
        let (first, second) = (one.address(), other.address());
        drop(other);
        let user = {
            let uses = Arc::clone(&uses);
            spawn(move || {
                uses.set(1);
                drop(one);
            })
        };
        // Of the two one is free, and the other may become so meanwhile.
        let next = slabs.place(3_u64);
        assert!([first, second].contains(&next.address()));
        if next.address() == first {
            uses.set(2);
        }
        let last = slabs.place(4_u64);
        assert_ne!(last.address(), next.address(), "given out twice");
        user.join().unwrap();
        assert_eq!((next.get(), last.get()), (3, 4));
        drop((next, last));
        slabs.sweep();
        let again = [slabs.place(5_u64), slabs.place(6_u64)];
        assert_eq!((again.each_ref().map(|placed| placed.get()), slabs.slabs()), ([5, 6], 1), "a block was lost");
    });
}

/// Promise: a slab that becomes empty while somebody sweeps goes then or with the next sweep.
/// Mutations: the mark taken back after the sweep; no mark where the block is given back.
#[test]
fn an_emptied_slab_goes_with_the_next_sweep() {
    Model::new("an_emptied_slab_goes_with_the_next_sweep").preemptions(3).check(|| {
        let slabs = Slabs::new();
        let kept = [slabs.place(1_u64), slabs.place(2_u64)];
        let rows = [slabs.place(3_u64), slabs.place(4_u64), slabs.place(5_u64), slabs.place(6_u64)];
        assert_eq!(slabs.slabs(), 3);
        let [a, b, c, d] = rows;
        drop((a, c));
        let user = spawn(move || drop((b, d)));
        slabs.sweep();
        user.join().unwrap();
        slabs.sweep();
        assert_eq!(slabs.slabs(), 2, "one of the empty ones stays for those who come");
        assert_eq!(kept.each_ref().map(|placed| placed.get()), [1, 2]);
    });
}
