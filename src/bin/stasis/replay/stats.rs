//! What the bus says about itself, over all runs.

use super::report::grouped;
use serde_json::{Value, json};
use stasis_bus::BusStats;
use std::fmt::{self, Display, Formatter};

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) lanes: usize,
    published: u64,
    unwanted: u64,
    refused: u64,
    delivered: u64,
    late: u64,
    panics: u64,
    sleeps: u64,
    late_type_uses: u64,
    ring_bytes: u64,
    /// Most dispatches that waited, by lane.
    high_water: Vec<u64>,
}

impl Stats {
    pub(crate) fn add(&mut self, stats: &BusStats) {
        self.lanes = stats.lanes.len();
        self.published += stats.published;
        self.unwanted += stats.unwanted;
        self.refused += stats.refused;
        self.delivered += stats.delivered;
        self.late += stats.late;
        self.panics += stats.panics;
        self.late_type_uses += stats.late_type_uses;
        self.ring_bytes = self.ring_bytes.max(stats.ring_bytes as u64);
        self.sleeps += stats.lanes.iter().map(|lane| lane.sleeps).sum::<u64>();
        self.high_water.resize(self.lanes, 0);
        for (most, lane) in self.high_water.iter_mut().zip(&stats.lanes) {
            *most = (*most).max(lane.high_water);
        }
    }

    /// Queued and not delivered. The one cause a run can have: it came while the subscription was
    /// leaving. (A publish refused because a queue is full is tried again.)
    pub(crate) fn dropped(&self) -> u64 {
        self.late
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "lanes": self.lanes,
            "published": self.published,
            "unwanted": self.unwanted,
            "refused": self.refused,
            "delivered": self.delivered,
            "late": self.late,
            "panics": self.panics,
            "sleeps": self.sleeps,
            "late_type_uses": self.late_type_uses,
            "ring_bytes": self.ring_bytes,
            "lane_high_water": self.high_water,
        })
    }
}

impl Display for Stats {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let high_water: Vec<String> = self.high_water.iter().map(|most| grouped(*most)).collect();
        write!(
            f,
            "{} publishes accepted by somebody, {} by nobody, {} refused, {} late deliveries, {} panics; queue high water by lane: {}",
            grouped(self.published),
            grouped(self.unwanted),
            grouped(self.refused),
            grouped(self.late),
            grouped(self.panics),
            high_water.join(" ")
        )
    }
}
