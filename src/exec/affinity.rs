//! Pinning a worker to a core. The only file that names core_affinity.

/// Where the workers of lanes run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Pinning {
    /// Lane n on the n-th core this process may use, round and round (default).
    #[default]
    Cores,
    /// Where the operating system likes.
    Off,
    /// Lane n on the n-th of these core numbers, round and round.
    List(Vec<usize>),
}

impl Pinning {
    /// The core of lane `index`.
    pub(crate) fn core_of(&self, index: usize) -> Option<usize> {
        match self {
            Self::Off => None,
            Self::List(cores) => cores.get(index % cores.len().max(1)).copied(),
            Self::Cores => {
                let cores = core_affinity::get_core_ids()?;
                cores.get(index % cores.len().max(1)).map(|core| core.id)
            }
        }
    }
}

/// Core numbers below this fit into the system's sets of cores; core_affinity panics beyond.
const CORES: usize = 1024;

/// Pins the calling thread; warns and goes on where the system refuses.
pub(crate) fn pin_this_thread(core: usize) {
    if core >= CORES || !core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        tracing::warn!(core, "the system refuses to pin a lane to this core; it runs unpinned");
    }
}
