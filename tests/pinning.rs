//! Conformance: where lanes run. Reads what Linux says of the thread a handler runs on.
#![cfg(target_os = "linux")]
mod common;

use common::{eventually, next, number};
use stasis_bus::{Bus, Delivery, Pinning};
use std::sync::mpsc;
use std::time::Duration;

/// The cores the calling thread may run on, as the system writes them: "0", "0-1".
fn cores_of_this_thread() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    line.trim().to_owned()
}

fn two_cores() -> Option<[usize; 2]> {
    let cores = core_affinity::get_core_ids()?;
    (cores.len() > 1).then(|| [cores[0].id, cores[1].id])
}

/// A message from a thread on that core while the lane sleeps; where the handler ran.
fn ask_from(core: usize, bus: &Bus, asleep: Duration) -> String {
    let topic = bus.topic("where").unwrap();
    let kind = number(bus);
    let (tell, told) = mpsc::channel();
    let there = topic.subscriber().accept(&kind).subscribe(move |_| drop(tell.send(cores_of_this_thread()))).unwrap();
    let from = std::thread::spawn(move || {
        assert!(core_affinity::set_for_current(core_affinity::CoreId { id: core }));
        std::thread::sleep(asleep);
        topic.publish(kind.message(1)).unwrap();
    });
    let seen = next(&told);
    // The final message comes here too, from this thread.
    from.join().unwrap();
    drop(there);
    seen
}

fn bus(pinning: Pinning) -> Bus {
    Bus::builder().lanes(1).pinning(pinning).watchdog(None).build().unwrap()
}

#[test]
fn a_lane_woken_from_its_own_core_steps_aside_and_goes_home() {
    let Some([own, other]) = two_cores() else { return };
    let bus = bus(Pinning::Cores);
    // It may be awake when the message comes, and is not woken then: asked again.
    eventually("leaves the core that is taken", || ask_from(own, &bus, Duration::from_millis(20)) != own.to_string());
    // Idle for so long it is at home again, and whoever wakes it from elsewhere leaves it there.
    eventually("is at home again", || ask_from(other, &bus, Duration::from_millis(700)) == own.to_string());
}

/// The core the calling thread runs on.
fn core_of_this_thread() -> usize {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(36).unwrap().parse().unwrap()
}

/// Where the handler ran, and might run, for each of so many messages from that core.
fn stream_from(core: usize, bus: &Bus, count: usize, apart: Duration) -> Vec<(usize, String)> {
    let topic = bus.topic("stream").unwrap();
    let kind = number(bus);
    let (tell, told) = mpsc::channel();
    let tell = move || drop(tell.send((core_of_this_thread(), cores_of_this_thread())));
    let there = topic.subscriber().accept(&kind).subscribe(move |_| tell()).unwrap();
    let from = std::thread::spawn(move || {
        assert!(core_affinity::set_for_current(core_affinity::CoreId { id: core }));
        for n in 0..count as u64 {
            std::thread::sleep(apart);
            topic.publish(kind.message(n)).unwrap();
        }
    });
    from.join().unwrap();
    let seen = (0..count).map(|_| next(&told)).collect();
    drop(there);
    seen
}

/// Who has little to do may run beside who wakes it, which is sooner; who has much is woken elsewhere, else it would stay
/// there.
#[test]
fn a_lane_woken_seldom_from_its_core_may_run_there_and_a_busy_one_is_woken_elsewhere() {
    let Some([own, _]) = two_cores() else { return };
    let all = cores_of_this_thread();
    let bus = bus(Pinning::Cores);
    eventually("anywhere", || {
        stream_from(own, &bus, 10, Duration::from_millis(5)).last().is_some_and(|(_, cores)| *cores == all)
    });
    eventually("off the publisher's core, and not bound to another", || {
        let seen = stream_from(own, &bus, 200, Duration::from_micros(20));
        seen.iter().any(|(core, cores)| *core != own && *cores == all)
    });
}

#[test]
fn a_lane_woken_from_another_core_stays() {
    let Some([own, other]) = two_cores() else { return };
    let bus = bus(Pinning::Cores);
    // The subscribing thread wakes it too: from another core as well. A thread of its own: the test's is not to stay there.
    let asks = std::thread::spawn(move || {
        assert!(core_affinity::set_for_current(core_affinity::CoreId { id: other }));
        for _ in 0..5 {
            assert_eq!(ask_from(other, &bus, Duration::from_millis(20)), own.to_string());
        }
    });
    asks.join().unwrap();
}

#[test]
fn lanes_on_listed_cores_never_leave_them() {
    let Some([_, own]) = two_cores() else { return };
    let bus = bus(Pinning::List(vec![own]));
    for _ in 0..5 {
        assert_eq!(ask_from(own, &bus, Duration::from_millis(20)), own.to_string());
    }
}

#[test]
fn unpinned_lanes_run_anywhere() {
    let Some([own, _]) = two_cores() else { return };
    let all = cores_of_this_thread();
    assert_eq!(ask_from(own, &bus(Pinning::Off), Duration::from_millis(20)), all);
}

/// Threads inherit the cores of who starts them; a dedicated subscription made in a handler is not bound to the lane's.
#[test]
fn threads_that_a_pinned_lane_starts_are_not_bound_to_its_core() {
    let Some([own, _]) = two_cores() else { return };
    let all = cores_of_this_thread();
    for pinning in [Pinning::Cores, Pinning::List(vec![own])] {
        let bus = bus(pinning);
        let (first, second) = (bus.topic("first").unwrap(), bus.topic("second").unwrap());
        let kind = number(&bus);
        let (tell, told) = mpsc::channel();
        let (there, its_kind) = (second.clone(), kind.clone());
        let mut made = Vec::new();
        let made_in_a_handler = first
            .subscriber()
            .accept(&kind)
            .subscribe(move |_| {
                let tell = tell.clone();
                made.push(
                    there
                        .subscriber()
                        .delivery(Delivery::Dedicated)
                        .accept(&its_kind)
                        .subscribe(move |_| drop(tell.send(cores_of_this_thread())))
                        .unwrap(),
                );
                there.publish(its_kind.message(2)).unwrap();
            })
            .unwrap();
        first.publish(kind.message(1)).unwrap();
        assert_eq!(next(&told), all);
        drop(made_in_a_handler);
    }
}

/// Nor are the threads of taskprocessors and task pools that a handler makes.
#[cfg(feature = "ext")]
#[test]
fn taskprocessors_made_on_a_pinned_lane_are_not_bound_to_its_core() {
    use stasis_bus::taskprocessor::Taskprocessors;
    let Some([own, _]) = two_cores() else { return };
    let all = cores_of_this_thread();
    let bus = bus(Pinning::List(vec![own]));
    let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
    let (tell, told) = mpsc::channel();
    let mut made = Vec::new();
    let maker = topic
        .subscriber()
        .accept(&kind)
        .subscribe(move |received| {
            if received.is_final() {
                return;
            }
            let processor = Taskprocessors::new().get("made in a handler").unwrap();
            let (tell, here) = (tell.clone(), cores_of_this_thread());
            processor.push(move || drop(tell.send((here, cores_of_this_thread())))).unwrap();
            made.push(processor);
        })
        .unwrap();
    topic.publish(kind.message(1)).unwrap();
    assert_eq!(next(&told), (own.to_string(), all));
    maker.unsubscribe_and_join(common::PATIENCE).unwrap();
}
