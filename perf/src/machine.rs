//! What the figures were measured on, and what else ran meanwhile.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Machine, compiler, commit, date, command.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    rustc: &'static str,
    commit: &'static str,
    date: String,
    command: String,
    allocator: &'static str,
    load_before: String,
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_default()
}

impl Machine {
    /// This one, now.
    pub(crate) fn this() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| info.lines().find(|line| line.starts_with(name))?.split(": ").nth(1);
        let named = |name: &str| field(name).unwrap_or("?").trim().to_owned();
        let date = Command::new("date").args(["-u", "+%F %H:%M UTC"]).output().map(|output| output.stdout);
        Self {
            cpu: format!("{} (family {}, model {})", named("model name"), named("cpu family"), named("model\t")),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            rustc: env!("PERF_RUSTC"),
            commit: env!("PERF_COMMIT"),
            date: date.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default(),
            command: std::env::args().skip(1).fold("perf".to_owned(), |line, argument| format!("{line} {argument}")),
            allocator: crate::ALLOCATOR,
            load_before: first_line("/proc/loadavg"),
        }
    }

    /// Lines for the head of the table.
    pub(crate) fn lines(&self) -> String {
        let Self { cpu, cores, kernel, rustc, commit, date, command, allocator, load_before } = self;
        format!(
            "machine   {cpu}, {cores} cores, Linux {kernel}; load average before: {load_before}\n\
             build     {rustc}, commit {commit}, release with thin LTO, allocator: {allocator}\n\
             run       {date}: {command}"
        )
    }
}

/// CPU time of the whole machine so far, in ticks: busy, all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    busy: u64,
    all: u64,
    own: u64,
}

impl Ticks {
    /// Now.
    pub(crate) fn now() -> Self {
        let numbers = |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        // user nice system idle iowait irq softirq steal
        let machine = numbers(&first_line("/proc/stat"));
        let all: u64 = machine.iter().take(8).sum();
        let idle: u64 = machine.iter().skip(3).take(2).sum();
        let stat = first_line("/proc/self/stat");
        // After the name in brackets: state first, user and system time twelfth and thirteenth.
        let own = stat.rsplit(')').next().map(|rest| rest.split_whitespace().skip(11).take(2).collect::<Vec<_>>());
        let own = own.map_or(0, |words| numbers(&words.join(" ")).iter().sum());
        Self { busy: all - idle, all, own }
    }

    /// Share of the machine that others (and the hypervisor) had since `earlier`.
    pub(crate) fn others_since(self, earlier: Self) -> f64 {
        let all = (self.all - earlier.all).max(1) as f64;
        let others = (self.busy - earlier.busy).saturating_sub(self.own - earlier.own);
        others as f64 / all
    }
}
