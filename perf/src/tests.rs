//! Every contender delivers exactly, in every scenario it takes part in; and the checks find what is wrong.

use std::sync::{Arc, Mutex, OnceLock};

use crate::contender::Mode;
use crate::contenders;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::report::{Row, losses, median, table};
use crate::round::{self, Burst, Latency, Round, check};
use crate::scenario::{self, Scenario};
use crate::subscriber::{Phase, Record, Records, Special, Subscriber, Task, histogram};

#[test]
fn every_contender_delivers_exactly() {
    for scenario in scenario::all() {
        let (subscribers, mode) = (scenario.shape.subscribers(), scenario.shape.mode);
        // Some laps of a full queue where that is cheap.
        let messages = match mode {
            Mode::Latency { .. } | Mode::Burst => 100,
            _ if subscribers > 1000 => 100,
            _ if subscribers > 8 => 400,
            _ => 8_000,
        };
        for contender in contenders::all().iter().filter(|contender| contender.fits(&scenario.shape)) {
            let round = round::run(contender.as_ref(), &Scenario { messages, ..scenario.clone() }).unwrap();
            assert!(contender.is_lossy() || round.lost == 0.0, "{}", contender.name());
            let one = scenario.shape.topics() == 1 && mode != Mode::Filtered;
            let offered = messages * if one { subscribers.max(1) as u64 } else { 1 };
            let made = if one { round.deliveries } else { round.deliveries.min(offered) };
            assert!(contender.is_lossy() || made == offered, "{}: {round:?}", contender.name());
            assert_eq!(round.latency.is_some(), matches!(mode, Mode::Latency { .. }));
            assert_eq!(round.burst.is_some(), mode == Mode::Burst);
        }
    }
}

#[test]
fn a_plan_gives_each_message_a_topic_and_the_first_ones_most() {
    let plan = Plan::zipf(1000, 8);
    assert_eq!((plan.topics(), plan.subscribers()), (1000, 8000));
    let expected = plan.expected(1 << 16);
    assert_eq!(expected.iter().map(|&(count, _)| count).sum::<u64>(), 1 << 16);
    // Of harmonic number 7.49: 8755, 4377, 875.
    let near = |rank: usize, count: u64| expected[rank - 1].0.abs_diff(count) < count / 10;
    assert!(near(1, 8755) && near(2, 4377) && near(10, 875), "{:?}", &expected[..10]);
    assert!(expected.iter().all(|&(count, _)| count > 0));
    assert_eq!(Plan::one(3).expected(3), [(3, 6)]);
}

#[test]
fn recordings_become_plans() {
    let names: Vec<_> =
        scenario::all().iter().filter(|one| one.name.contains("calls") || one.name == "queue").collect();
    assert_eq!(names.len(), 3);
    for scenario in names {
        let plan = &scenario.shape.plan;
        assert!(plan.topics() > 1 && plan.subscribers() > 1, "{}", scenario.name);
        let reached: u64 = plan.expected(8192).iter().zip(&plan.fanout).map(|(&(count, _), &n)| count * n as u64).sum();
        assert!(reached > 0, "{}", scenario.name);
    }
    assert!(Plan::recorded(std::path::Path::new("/nowhere")).is_err());
}

#[test]
fn a_late_publisher_does_not_hide_latency() {
    use std::time::{Duration, Instant};
    let (start, times) = (Arc::new(OnceLock::new()), Arc::new(Mutex::new(histogram())));
    // Due twenty seconds ago; the next one ten seconds ago.
    start.set(Instant::now().checked_sub(Duration::from_secs(20)).unwrap()).unwrap();
    let task = Task::Time { start, period: Duration::from_secs(10), times: Arc::clone(&times) };
    let mut subscriber = Subscriber::new(0, &[], Some(Special { from: 5, task }), &Records::default());
    for n in 4..7 {
        subscriber.take(&[n; 8]);
    }
    drop(subscriber);
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2, "the warm-up is not timed");
    assert!(times.min() >= 9_900_000_000 && times.max() >= 19_900_000_000);
}

#[test]
fn plots_are_drawn_as_svg_and_png() {
    use std::time::Duration;
    let mut rows = Vec::new();
    for scenario in scenario::all() {
        for contender in contenders::all().iter().filter(|one| one.fits(&scenario.shape)) {
            let mut row = Row::new(scenario.name, contender.name());
            let spread = rows.len() as f64 % 9.0 + 1.0;
            let latency = Latency { p50: spread * 1e3, p90: 2e3 * spread, p99: 5e3 * spread, p999: 9e4, most: 1e5 };
            row.add(
                Round {
                    wall: Duration::from_millis(10 * spread as u64),
                    cpu: Duration::from_millis(20),
                    deliveries: 100_000 * scenario.shape.subscribers().max(1) as u64,
                    latency: matches!(scenario.shape.mode, Mode::Latency { .. }).then_some(latency),
                    burst: (scenario.shape.mode == Mode::Burst).then_some(Burst {
                        publish: 50.0 * spread,
                        memory: 100.0,
                        recovery: 0.01,
                    }),
                    ..Round::default()
                },
                [60.0; 2],
            );
            rows.push(row);
        }
    }
    let directory = std::env::temp_dir().join(format!("perf-plots-{}", std::process::id()));
    crate::plots::draw(&directory, &rows).unwrap();
    for name in ["fanout", "latency", "publish", "lanes"] {
        for ending in ["svg", "png"] {
            assert!(std::fs::metadata(directory.join(format!("{name}.{ending}"))).unwrap().len() > 1000, "{name}");
        }
    }
    if std::env::var_os("PERF_KEEP_PLOTS").is_none() {
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn names_differ_and_ours_is_among_them() {
    let mut names: Vec<_> = contenders::all().iter().map(|contender| contender.name()).collect();
    assert_eq!(names[0], contenders::OURS);
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_message_too_few_too_many_or_twice_is_found() {
    let expected = Plan::one(1).expected(10);
    let right = Record::complete(0, expected[0]);
    assert_eq!(check(&[right, right], false, 2, &expected), Ok(()));
    let wrong = [
        Record { count: 9, ..right },
        Record { count: 11, ..right },
        // One twice, another never.
        Record { sum: right.sum + 2, ..right },
        Record { count: 9, lost: 1, ..right },
    ];
    for record in wrong {
        assert!(check(&[right, record], false, 2, &expected).is_err(), "{record:?}");
    }
    assert!(check(&[right], false, 2, &expected).is_err());
    assert_eq!(check(&[Record { count: 3, lost: 7, ..Record::default() }], true, 1, &expected), Ok(()));
    assert!(check(&[Record { count: 3, lost: 6, ..Record::default() }], true, 1, &expected).is_err());
}

#[test]
fn a_subscriber_ends_its_phases_once_also_when_losses_jump_over_them() {
    use crate::subscriber::Receive;
    let meters = [(); 2].map(|()| Arc::new(Meter::new(2)));
    let phases = [(2, &meters[0]), (4, &meters[1])].map(|(until, meter)| Phase { until, meter: Arc::clone(meter) });
    let records = Records::default();
    let mut counting = Subscriber::new(0, &phases, None, &records);
    counting.take(&[0; 8]);
    assert_eq!([meters[0].remaining(), meters[1].remaining()], [2, 2]);
    counting.take(&[1; 8]);
    assert_eq!([meters[0].remaining(), meters[1].remaining()], [1, 2]);
    Subscriber::new(0, &phases, None, &records).miss(4);
    assert_eq!([meters[0].remaining(), meters[1].remaining()], [0, 1]);
    drop(counting);
    let records = records.lock().unwrap();
    assert_eq!(
        *records,
        [Record { lost: 4, lost_warming: 4, ..Record::default() }, Record { count: 2, sum: 2, ..Record::default() }]
    );
}

#[test]
fn the_table_marks_where_we_lose() {
    use std::time::Duration;
    let row = |name: &str, millis: u64| {
        let mut row = Row::new("1->1", name.into());
        let time = Duration::from_millis(millis);
        row.add(Round { wall: time, cpu: time, deliveries: 1_000_000, ..Round::default() }, [60.0; 2]);
        row
    };
    let rows = [row(contenders::OURS, 100), row("slow", 200), row("fast", 50)];
    let text = table(&rows);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(line("slow").contains(" 2.00 ") && !line("slow").contains('<'), "{text}");
    assert!(line("fast").contains("<0.50"), "{text}");
    assert!(losses(&rows).contains("fast x2.00"));
}

#[test]
fn medians() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    assert!(median(&[]).is_nan());
}
