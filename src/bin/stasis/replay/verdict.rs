//! What a run has kept of its promises: its logs against the oracle and against the recording.

use super::figures::Figures;
use super::listener::{Call, Key};
use super::oracle::{Ear, Oracle, Span};
use super::plan::{Plan, Publish};
use super::stage::Remains;
use std::collections::HashMap;

/// Violations kept as text, at most.
const EXAMPLES: usize = 12;

/// Counts that must be zero, and those that explain.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Surely accepted and not delivered.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    /// Delivered after a message whose publish began only after this one's had ended.
    pub(crate) reordered: u64,
    pub(crate) after_final: u64,
    /// Subscriptions without exactly one final message.
    pub(crate) finals_wrong: u64,
    /// Delivered to a subscription that was not on the list or did not accept.
    pub(crate) unexpected: u64,
    pub(crate) handlers_alive: u64,
    /// Messages, types and topics alive after the end.
    pub(crate) leaked: u64,
    /// Deliveries by the bus's own count that are not in the logs, or the other way round.
    pub(crate) miscounted: u64,
    /// Messages whose recorded set of receivers differs without an explanation.
    pub(crate) disagreeing: u64,
    /// Difference explained: the original was half-way through a subscribe or forward.
    pub(crate) half_way: u64,
    /// Difference explained: an operation has another place in the order of this run.
    pub(crate) moved: u64,
    /// Difference explained: the original delivered a message twice over two ways, here it comes once (G3).
    pub(crate) once: u64,
    /// Messages compared with the recording.
    pub(crate) compared: u64,
    /// Publishes that overlapped an operation which decides about a receiver.
    pub(crate) ambiguous: u64,
    pub(crate) failures: u64,
    pub(crate) examples: Vec<String>,
}

impl Findings {
    /// Whether every promise was kept.
    pub(crate) fn hold(&self) -> bool {
        [
            self.lost,
            self.duplicated,
            self.reordered,
            self.after_final,
            self.finals_wrong,
            self.unexpected,
            self.handlers_alive,
            self.leaked,
            self.miscounted,
            self.disagreeing,
            self.failures,
        ]
        .iter()
        .all(|&count| count == 0)
    }

    pub(crate) fn add(&mut self, other: Findings) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.after_final += other.after_final;
        self.finals_wrong += other.finals_wrong;
        self.unexpected += other.unexpected;
        self.handlers_alive += other.handlers_alive;
        self.leaked += other.leaked;
        self.miscounted += other.miscounted;
        self.disagreeing += other.disagreeing;
        self.half_way += other.half_way;
        self.moved += other.moved;
        self.once += other.once;
        self.compared += other.compared;
        self.ambiguous += other.ambiguous;
        self.failures += other.failures;
        other.examples.into_iter().for_each(|example| self.note(|| example));
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// Judges one run. With `compare`, its deliveries are also compared with the recorded ones.
pub(crate) fn judge(plan: &Plan, remains: &Remains, compare: bool, figures: &mut Figures) -> Findings {
    let mut findings = Findings::default();
    for failure in &remains.failures {
        findings.failures += 1;
        findings.note(|| failure.clone());
    }
    let got = receivers(plan, remains, figures, &mut findings);
    let mut run = Oracle::new(plan, |id, _| span(remains, id));
    let mut lines = Oracle::of_lines(plan);
    for (id, publish) in plan.publishes.iter().enumerate() {
        let Some(during) = span(remains, publish.operation) else { continue };
        let got = &got[id];
        let audience = run.audience(publish, during);
        findings.ambiguous += u64::from(audience.iter().any(|ear| !ear.must));
        for ear in &audience {
            if ear.must && got.binary_search(&ear.sub).is_err() {
                findings.lost += 1;
                findings.note(|| format!("lost: {} did not reach {}", message(publish), name(plan, ear.sub)));
            }
        }
        for sub in got {
            if find(&audience, *sub).is_none() {
                findings.unexpected += 1;
                findings.note(|| format!("unexpected: {} reached {}", message(publish), name(plan, *sub)));
            }
        }
        if compare {
            agree(plan, publish, got, &audience, &mut lines, &mut findings);
        }
    }
    for (sub, id) in remains.ids.iter().enumerate() {
        let dropped = remains.handlers_dropped[sub];
        if id.is_some() && dropped != 1 {
            findings.handlers_alive += 1;
            findings.note(|| format!("handler of {} was dropped {dropped} times", name(plan, sub as u32)));
        }
    }
    findings
}

fn span(remains: &Remains, operation: u32) -> Option<Span> {
    let (start, end) = remains.spans[operation as usize];
    (start != 0).then_some(Span { start, end })
}

fn find(audience: &[Ear], sub: u32) -> Option<Ear> {
    audience.binary_search_by_key(&sub, |ear| ear.sub).ok().map(|place| audience[place])
}

fn message(publish: &Publish) -> String {
    format!("message {} published on topic {} at line {}", publish.message, publish.topic, publish.line)
}

fn name(plan: &Plan, sub: u32) -> String {
    let origin = plan.trace.subscriptions.get(sub).map_or("", |info| &info.origin);
    format!("subscription {sub} ({origin})")
}

/// Reads the logs: receivers of each publish, order, doubles, final messages, times.
fn receivers(plan: &Plan, remains: &Remains, figures: &mut Figures, findings: &mut Findings) -> Vec<Vec<u32>> {
    let subs: HashMap<u64, u32> =
        remains.ids.iter().enumerate().filter_map(|(sub, id)| Some(((*id)?, sub as u32))).collect();
    let resolve = |key: Key| match key {
        Key::Publish(publish) => Some(publish),
        Key::Subscribed(id) => plan.changes.get(&(true, *subs.get(&id)?)).copied(),
        Key::Unsubscribed(id) => plan.changes.get(&(false, *subs.get(&id)?)).copied(),
        Key::Final | Key::Foreign => None,
    };
    let mut got: Vec<Vec<u32>> = vec![Vec::new(); plan.publishes.len()];
    let mut logs: Vec<&(u32, Vec<Call>)> = remains.logs.iter().collect();
    logs.sort_by_key(|(sub, _)| *sub);
    for (sub, log) in logs {
        let mut latest = 0;
        let finals = log.iter().filter(|call| call.key == Key::Final).count();
        if finals != 1 {
            findings.finals_wrong += 1;
            findings.note(|| format!("{} got {finals} final messages", name(plan, *sub)));
        }
        let last = log.iter().position(|call| call.key == Key::Final).unwrap_or(log.len());
        findings.after_final += log.len().saturating_sub(last + 1) as u64;
        for call in log {
            figures.call(plan, *sub, call);
            if call.key == Key::Foreign {
                findings.unexpected += 1;
                findings.note(|| format!("unexpected: {} got a message nobody published", name(plan, *sub)));
            }
            let Some(publish) = resolve(call.key) else { continue };
            got[publish as usize].push(*sub);
            let Some(during) = span(remains, plan.publishes[publish as usize].operation) else { continue };
            if during.end < latest {
                findings.reordered += 1;
                let late = &plan.publishes[publish as usize];
                findings.note(|| format!("reordered: {} reached {} too late", message(late), name(plan, *sub)));
            }
            latest = latest.max(during.start);
            figures.latency(plan, *sub, during.start, call);
        }
    }
    for subs in &mut got {
        subs.sort_unstable();
        let before = subs.len();
        subs.dedup();
        findings.duplicated += (before - subs.len()) as u64;
    }
    got
}

/// Compares the receivers of one message with the recorded ones (or, where deliveries were not
/// recorded, with what the recorded lists and filters imply).
fn agree(
    plan: &Plan,
    publish: &Publish,
    got: &[u32],
    audience: &[Ear],
    lines: &mut Oracle<'_>,
    findings: &mut Findings,
) {
    findings.compared += 1;
    let at = Span { start: u64::from(publish.line), end: u64::from(publish.end_line) };
    let mut recorded: Vec<u32> = publish.recorded.iter().map(|delivery| delivery.sub).collect();
    if !plan.trace.has_deliveries {
        recorded = lines.audience(publish, at).iter().map(|ear| ear.sub).collect();
        let (least, most) = lines.list_length(publish, at);
        let listed = publish.listed as usize;
        if listed > most && listed <= lines.ways(publish, at) {
            findings.once += 1;
        } else if !(least..=most).contains(&listed) {
            findings.disagreeing += 1;
            findings.note(|| {
                let listed = publish.listed;
                format!(
                    "disagrees: {} had a list of {listed} in the recording, its lines imply {most}",
                    message(publish)
                )
            });
            return;
        }
    }
    recorded.sort_unstable();
    let before = recorded.len();
    recorded.dedup();
    findings.once += u64::from(recorded.len() < before);
    if recorded == got {
        return;
    }
    let by_lines = lines.audience(publish, at);
    let (mut half_way, mut moved, mut unexplained) = (false, false, None);
    let missing = recorded.iter().filter(|sub| got.binary_search(sub).is_err()).map(|sub| (*sub, true));
    let extra = got.iter().filter(|sub| recorded.binary_search(sub).is_err()).map(|sub| (*sub, false));
    for (sub, was_recorded) in missing.chain(extra) {
        let in_lines = find(&by_lines, sub);
        let here = find(audience, sub);
        if in_lines.is_some_and(|ear| !ear.must) {
            half_way = true;
        } else if in_lines.is_some() == was_recorded && here.map_or(was_recorded, |ear| !ear.must || !was_recorded) {
            // Recorded, and not sure here; or not recorded, and possible here.
            moved = true;
        } else {
            unexplained = Some((sub, was_recorded));
        }
    }
    if let Some((sub, was_recorded)) = unexplained {
        findings.disagreeing += 1;
        let what = if was_recorded { "was recorded for" } else { "was not recorded for" };
        let here = if was_recorded { "did not reach it" } else { "reached it" };
        findings.note(|| format!("disagrees: {} {what} {}, here it {here}", message(publish), name(plan, sub)));
    } else {
        findings.moved += u64::from(moved);
        findings.half_way += u64::from(half_way && !moved);
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
