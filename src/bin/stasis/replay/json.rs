//! The summary for programs. Keys are stable: they may be added, never renamed.

use super::figures::Times;
use super::options::{Order, Speed};
use super::report::Report;
use serde_json::{Map, Value, json};

pub(crate) fn of(report: &Report) -> Value {
    let (figures, found) = (&report.figures, &report.findings);
    let verdicts: Map<String, Value> =
        report.verdicts().into_iter().map(|(name, count, _)| (name.to_owned(), json!(count == 0))).collect();
    let parts = &report.parts;
    let caches = json!({
        "changes": parts.cache_changes,
        "lookups": parts.cache_lookups,
        "unknown": parts.cache_unknown,
        "differences": parts.cache_differences,
    });
    let pools = json!({ "operations": parts.pool_operations, "differences": parts.pool_differences });
    let kinds = json!({
        "direct": times(&figures.direct),
        "mailbox": times(&figures.mailbox),
        "pool": times(&figures.pool),
    });
    json!({
        "trace": report.plan.trace.name,
        "order": if report.order == Order::Recorded { "recorded" } else { "threads" },
        "speed": match report.speed { Speed::Max => "max", Speed::Recorded => "1x", Speed::TenTimes => "10x" },
        "repeat": report.repeat,
        "ok": report.holds(),
        "published": figures.published,
        "delivered": figures.delivered,
        "finals": figures.finals,
        "recorded_deliveries": report.recorded_deliveries(),
        "dropped": report.stats.dropped(),
        "full_retries": figures.full,
        "lost": found.lost,
        "duplicated": found.duplicated,
        "reordered": found.reordered,
        "unexpected": found.unexpected,
        "after_final": found.after_final,
        "finals_wrong": found.finals_wrong,
        "handlers_alive": found.handlers_alive,
        "leaked": found.leaked,
        "miscounted": found.miscounted,
        "disagreeing": found.disagreeing,
        "explained": { "half_way": found.half_way, "moved": found.moved, "once": found.once },
        "skipped_finals": report.skipped_finals(),
        "compared": found.compared,
        "ambiguous": found.ambiguous,
        "failures": found.failures,
        "caches": caches,
        "pools": pools,
        "verdicts": verdicts,
        "examples": found.examples,
        "publish_ns": times(&figures.publish),
        "latency_ns": times(&figures.latency),
        "latency_by_kind_ns": kinds,
        "wall_s": figures.wall_s,
        "ops": figures.operations,
        "busiest_topics": figures.busiest(10).into_iter().map(|(name, count)| json!({ "topic": name, "published": count })).collect::<Vec<_>>(),
        "slowest_handlers": figures.slowest(10).into_iter().map(|(name, handler)| json!({
            "subscriber": name, "calls": handler.times.len(), "total_ns": handler.total, "ns": times(&handler.times),
        })).collect::<Vec<_>>(),
        "deepest_queues": figures.deepest(10).into_iter().map(|(name, most)| json!({ "subscriber": name, "most": most })).collect::<Vec<_>>(),
        "bus": report.stats.json(),
    })
}

fn times(times: &Times) -> Value {
    json!({
        "p50": times.value_at_quantile(0.5),
        "p95": times.value_at_quantile(0.95),
        "p99": times.value_at_quantile(0.99),
        "p999": times.value_at_quantile(0.999),
        "max": times.max(),
    })
}
