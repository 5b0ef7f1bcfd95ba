//! Every contender delivers exactly, in every scenario it takes part in; and the checks find what is wrong.

use std::sync::Arc;

use crate::contenders;
use crate::meter::Meter;
use crate::report::{Row, losses, median, table};
use crate::round::{self, Round, check};
use crate::scenario::{self, Scenario};
use crate::subscriber::{Phase, Record, Records, Subscriber};

#[test]
fn every_contender_delivers_exactly() {
    for scenario in scenario::ALL {
        // Some laps of a full queue where that is cheap.
        let messages = if scenario.shape.subscribers > 8 { 400 } else { 8_000 };
        for contender in contenders::all().iter().filter(|contender| contender.fits(scenario.shape)) {
            let round = round::run(contender.as_ref(), Scenario { messages, ..scenario }).unwrap();
            assert!(contender.is_lossy() || round.lost == 0.0, "{}", contender.name());
            let offered = messages * scenario.shape.subscribers.max(1) as u64;
            assert!(contender.is_lossy() || round.deliveries == offered, "{}: {round:?}", contender.name());
        }
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
    let right = Record::complete(10);
    assert_eq!(check(&[right, right], false, 2, 10), Ok(()));
    let wrong = [
        Record { count: 9, ..right },
        Record { count: 11, ..right },
        // One twice, another never.
        Record { sum: right.sum + 2, ..right },
        Record { count: 9, lost: 1, ..right },
    ];
    for record in wrong {
        assert!(check(&[right, record], false, 2, 10).is_err(), "{record:?}");
    }
    assert!(check(&[right], false, 2, 10).is_err());
    assert_eq!(check(&[Record { count: 3, lost: 7, ..Record::default() }], true, 1, 10), Ok(()));
    assert!(check(&[Record { count: 3, lost: 6, ..Record::default() }], true, 1, 10).is_err());
}

#[test]
fn a_subscriber_ends_its_phases_once_also_when_losses_jump_over_them() {
    use crate::subscriber::Receive;
    let meters = [(); 2].map(|()| Arc::new(Meter::new(2)));
    let phases = [(2, &meters[0]), (4, &meters[1])].map(|(until, meter)| Phase { until, meter: Arc::clone(meter) });
    let records = Records::default();
    let mut counting = Subscriber::new(&phases, &records);
    counting.take(&[0; 8]);
    assert_eq!([meters[0].remaining(), meters[1].remaining()], [2, 2]);
    counting.take(&[1; 8]);
    assert_eq!([meters[0].remaining(), meters[1].remaining()], [1, 2]);
    Subscriber::new(&phases, &records).miss(4);
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
        row.add(Round { wall: time, cpu: time, deliveries: 1_000_000, lost: 0.0 });
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
