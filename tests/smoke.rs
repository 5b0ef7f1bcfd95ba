use stasis_bus::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;
#[test]
fn smoke() {
    for delivery in [Delivery::default(), Delivery::Dedicated, Delivery::Inline] {
        let bus = Bus::builder().lanes(2).build().unwrap();
        let topic = bus.topic("t").unwrap();
        let ty = MessageType::<u64>::new(&bus, "n").unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let l = log.clone();
        let sub = topic
            .subscriber()
            .delivery(delivery)
            .subscribe(move |r| {
                let mut l = l.lock().unwrap();
                if r.is_final() {
                    l.push(u64::MAX)
                } else if let Some(n) = r.payload::<u64>() {
                    l.push(*n)
                }
            })
            .unwrap();
        for n in 0..100_000 {
            topic.publish(ty.message(n)).unwrap();
        }
        sub.unsubscribe().wait().unwrap();
        let got = log.lock().unwrap().clone();
        assert_eq!(got.len(), 100_001);
        assert!(got[..100_000].iter().enumerate().all(|(i, n)| i as u64 == *n));
        assert_eq!(got[100_000], u64::MAX);
        drop(sub);
        drop(topic);
        let r = bus.shutdown(Duration::from_secs(2)).unwrap();
        println!("{r:?} {:?}", bus.stats());
    }
}
