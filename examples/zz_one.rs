//! scratch
use stasis_bus::{Bus, Delivery, Home, MessageType, PublishError};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let m: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let mut b = Bus::builder();
    if std::env::var("WD").is_ok() {
        b = b.watchdog(None);
    }
    let bus = b.lanes(1).ring_capacity(4096).memory_budget(65536).build().unwrap();
    let t = bus.topic("x").unwrap();
    let k = MessageType::<[u8; 64]>::new(&bus, "p").unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let subs: Vec<_> = (0..n)
        .map(|_| {
            let (mut c, d) = (0u64, done.clone());
            t.subscriber()
                .delivery(Delivery::Lane(Home::Affinity))
                .accept(&k)
                .subscribe(move |r| {
                    if let Some(p) = r.payload::<[u8; 64]>() {
                        std::hint::black_box(p[0]);
                        c += 1;
                        if c == m {
                            d.fetch_add(1, Ordering::Release);
                        }
                    }
                })
                .unwrap()
        })
        .collect();
    let s = std::time::Instant::now();
    for i in 0..m {
        let mut msg = k.message([i as u8; 64]);
        let mut spins = 0u32;
        loop {
            match t.publish(msg) {
                Ok(()) => break,
                Err(PublishError::Full(b)) => {
                    msg = b;
                    spins += 1;
                    for _ in 0..1 << spins.min(6) {
                        std::hint::spin_loop()
                    }
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    while done.load(Ordering::Acquire) < n as u64 {
        std::hint::spin_loop();
    }
    println!("{:.2} ns per message", s.elapsed().as_nanos() as f64 / m as f64);
    drop(subs);
}
