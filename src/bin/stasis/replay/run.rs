//! One run: a fresh bus, all operations, the shutdown, then the judgement.

use super::listener::{Call, Key, payloads_alive};
use super::options::{Options, Order};
use super::plan::Plan;
use super::progress::Progress;
use super::recorded::{self, Turns};
use super::report::Report;
use super::stage::{Conductor, Stage};
use super::threads::{self, Aside, Crew};
use super::verdict;
use stasis_bus::Bus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the bus may take to deliver what is queued and to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(60);
/// How long topics and payloads may take to disappear after the last handle.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("the bus cannot be built: {0}\n  try --lanes 1, --pin off")]
    Build(#[from] stasis_bus::BuildError),
}

/// Replays a plan once and enters the outcome in the report.
pub(crate) fn once(options: &Options, plan: &Arc<Plan>, round: usize, report: &mut Report) -> Result<(), RunError> {
    let mut builder = Bus::builder().name("replay").pinning(options.pin.clone()).wait(options.wait_strategy());
    if let Some(lanes) = options.lanes {
        builder = builder.lanes(lanes.get());
    }
    let bus = builder.build()?;
    let conductor = match options.order {
        Order::Recorded => Conductor::Recorded(Box::new(Turns::new(plan))),
        Order::Threads => Conductor::Threads(Box::new(Crew::new(plan))),
    };
    let payloads_before = payloads_alive();
    let stage = Arc::new(Stage::new(Arc::clone(plan), options.settings(), conductor, bus.clone()));

    let what = if options.repeat.get() > 1 { format!("run {round} of {}", options.repeat) } else { "replaying".into() };
    let progress = Progress::new(what, plan.operations.len(), options.quiet);
    let began = Instant::now();
    match &stage.conductor {
        Conductor::Recorded(turns) => {
            recorded::run(&stage, options.publishers(), &|done| progress.at(done));
            report.moved(turns.moved());
            report.aside(Aside { orphaned: turns.orphaned(), ..Aside::default() });
        }
        Conductor::Threads(crew) => {
            threads::run(&stage, options.publishers(), &|done| progress.at(done));
            report.aside(crew.aside());
        }
    }
    stage.clear();
    let mut leaked = settle(|| bus.topics().len() as u64);
    let shutdown = bus.shutdown(SHUTDOWN_LIMIT);
    report.figures.wall_s += began.elapsed().as_secs_f64();
    drop(progress);
    match shutdown {
        Ok(left) => leaked += left.topics.len() as u64 + u64::from(!left.reclaimed),
        Err(error) => stage.fail(format!("the bus did not end: {error}")),
    }
    let stats = bus.stats();
    report.stats(&stats);
    leaked += settle(|| payloads_alive().abs_diff(payloads_before));

    let remains = stage.remains();
    leaked += remains.types_alive as u64;
    report.figures.operations(plan, &remains);
    let compare = options.order == Order::Recorded;
    let mut findings = verdict::judge(plan, &remains, compare, &mut report.figures);
    findings.leaked += leaked;
    let calls = |log: &[Call]| log.iter().filter(|call| call.key != Key::Final).count() as u64;
    let delivered: u64 = remains.logs.iter().map(|(_, log)| calls(log)).sum();
    findings.miscounted += delivered.abs_diff(stats.delivered);
    report.findings.add(findings);
    Ok(())
}

/// Waits for a count to become zero; what is left after the limit.
fn settle(count: impl Fn() -> u64) -> u64 {
    let since = Instant::now();
    loop {
        let left = count();
        if left == 0 || since.elapsed() > SETTLE_LIMIT {
            return left;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
