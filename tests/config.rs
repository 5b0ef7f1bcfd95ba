//! Conformance: `stasis.conf` and its TOML form.
#![cfg(feature = "ext")]
#![allow(missing_docs)]

#[path = "common/config_check.rs"]
mod config_check;

use proptest::prelude::*;
use stasis_bus::cache::{Cache, CacheClear, CacheUpdate, CachingTopic};
use stasis_bus::config::{BusSettings, Config, ConfigErrors, ConfigFiles, OrOff, Position, Problem};
use stasis_bus::follow::FollowError;
use stasis_bus::taskprocessor::TaskPool;
use stasis_bus::testing::MessageSink;
use stasis_bus::{
    Bus, BusBuilder, Delivery, MessageType, Pinning, SubscriptionChange, TypeError, WaitStrategy, WaterMarks,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// A file as it is installed: everything commented out but the section names.
const INSTALLED: &str = "
[threadpool]
;initial_size = 5          ; threads there are from the start
;idle_timeout_sec = 20     ; 0: for ever
;max_size = 50             ; 0: no limit

[declined_message_types]
; decline=stasis_app_recording_snapshot_type
; decline=ast_channel_varset_type
";

fn conf(text: &str) -> Config {
    Config::from_stasis_conf(text, "stasis.conf").unwrap_or_else(|errors| panic!("{errors}"))
}

fn conf_errors(text: &str) -> Vec<String> {
    shown(&Config::from_stasis_conf(text, "s").unwrap_err())
}

fn toml_errors(text: &str) -> Vec<String> {
    shown(&Config::from_toml(text, "s").unwrap_err())
}

/// Errors as text, up to what is allowed.
fn shown(errors: &ConfigErrors) -> Vec<String> {
    errors.iter().map(|error| error.to_string().split(';').next().unwrap().to_owned()).collect()
}

fn sizes(config: &Config) -> [u32; 3] {
    [config.threadpool.initial_size, config.threadpool.idle_timeout_sec, config.threadpool.max_size]
}

fn declined(config: &Config) -> Vec<&str> {
    config.declined_types.iter().map(String::as_str).collect()
}

fn files<const N: usize>(files: [(&str, &str); N]) -> BTreeMap<PathBuf, String> {
    files.into_iter().map(|(path, text)| (path.into(), text.to_owned())).collect()
}

#[test]
fn an_installed_file_and_an_empty_one_are_the_defaults() {
    for text in [INSTALLED, "", "\n\n", "; only a comment", ";-- only\na block --;", "\u{feff}", " \t\r\n"] {
        assert_eq!(conf(text), Config::default(), "{text:?}");
    }
    let config = Config::default();
    assert_eq!(sizes(&config), [5, 20, 50]);
    let tasks = config.taskpool;
    assert_eq!((tasks.minimum_size, tasks.initial_size, tasks.idle_timeout_sec, tasks.max_size), (5, 5, 20, 50));
    assert_eq!(Config::from_toml("", "s").unwrap(), config);
}

#[test]
fn settings_are_read_in_every_way_they_are_written() {
    let config = conf("[threadpool]\r\ninitial_size=3\r\n\tidle_timeout_sec => 0 ; never\r\nMax_Size   =   007\r\n");
    assert_eq!(sizes(&config), [3, 0, 7]);
    let config = conf("\u{feff}[TaskPool]\nminimum_size=1\ninitial_size=2\nidle_timeout_sec=3\nmax_size=4");
    let tasks = config.taskpool;
    assert_eq!((tasks.minimum_size, tasks.initial_size, tasks.idle_timeout_sec, tasks.max_size), (1, 2, 3, 4));
    assert_eq!(sizes(&conf("[threadpool]\nmax_size = 2147483647\ninitial_size = 0")), [0, 20, 2_147_483_647]);
}

#[test]
fn comments_are_left_out() {
    let text = "[threadpool] ; pool\n;-- max_size = 1\n;-- inner --; max_size = 2 --;max_size = 9;x\n\
                ;--- a line comment\n;;;\ninitial_size ;-- here --; = ;-- too --; 4\n";
    assert_eq!(sizes(&conf(text)), [4, 20, 9]);
    assert_eq!(conf_errors("[threadpool]\n  ;-- one\nmax_size = 1\n"), ["s:2:3: this block comment never ends"]);
}

#[test]
fn an_escaped_semicolon_is_one_and_nothing_continues_a_line() {
    let config =
        conf("[declined_message_types]\ndecline = a\\;b ; c\ndecline = \\;-- d\ndecline = e\\\ndecline = f\\\\;g");
    assert_eq!(declined(&config), [";-- d", "a;b", "e\\", "f\\;g"]);
}

#[test]
fn the_last_of_a_key_counts_and_declined_types_add_up() {
    let config = conf(
        "[threadpool]\nmax_size=10\nmax_size=11\n[declined_message_types]\ndecline=b\ndecline=a\ndecline => b\n\
         [threadpool]\nmax_size=12\n[declined_message_types]\ndecline=c\n",
    );
    assert_eq!((sizes(&config)[2], declined(&config)), (12, vec!["a", "b", "c"]));
}

#[test]
fn templates_are_inherited_in_order_and_do_nothing_alone() {
    let config = conf(
        "[small](!)\nmax_size=4\ninitial_size=2\n[quick](!,small)\nidle_timeout_sec=1\nmax_size=6\n\
         [unused](!)\nnonsense=1\n[threadpool](small, quick)\ninitial_size=3\n[taskpool](small)\n",
    );
    assert_eq!(sizes(&config), [3, 1, 6]);
    assert_eq!((config.taskpool.initial_size, config.taskpool.max_size, config.taskpool.minimum_size), (2, 4, 4));
}

#[test]
fn a_section_is_added_to_and_inherits_what_was_there_at_that_line() {
    let config = conf(
        "[t](!)\nmax_size=4\n[threadpool](t)\n[t](+)\nmax_size=8\n[taskpool](t)\n[threadpool](+)\ninitial_size=1\n",
    );
    assert_eq!((sizes(&config), config.taskpool.max_size), ([1, 20, 4], 8));
    assert_eq!(
        conf_errors("[threadpool](nobody)\nmax_size=x\n[taskpool](+)\nmax_size=x\n[thread](!)\n[threadpool](threed)\n"),
        [
            "s:1:1: no section 'nobody' to inherit from before this line",
            "s:3:1: no section 'taskpool' to add to before this line",
            "s:6:1: no section 'threed' to inherit from before this line, did you mean 'thread'?",
        ],
        "settings below a broken header are not complained about"
    );
}

#[test]
fn all_errors_are_told_together_with_their_places() {
    let text = "max_size = 3\n[threadpool]\n  max_size = many ; x\nmax_sise = 3\nnonsense\n= 4\n[thredpool]\n\
                [declined_message_types]\ndecline =\ndeny = x\n[general\n[]\n[taskpool] (t)\n#inclde x\n#include\n\
                [bus]\nlanes=1\n";
    assert_eq!(
        conf_errors(text),
        [
            "s:1:1: 'max_size' stands before the first section",
            "s:3:14: 'max_size' in section 'threadpool' cannot be 'many'",
            "s:4:1: unknown key 'max_sise' in section 'threadpool', did you mean 'max_size'?",
            "s:5:1: neither a [section], nor key = value, nor a #directive",
            "s:6:1: a value without a key",
            "s:7:1: unknown section 'thredpool', did you mean 'threadpool'?",
            "s:9:10: 'decline' in section 'declined_message_types' cannot be ''",
            "s:10:1: unknown key 'deny' in section 'declined_message_types'",
            "s:11:1: a section needs a ']' after its name",
            "s:12:1: a section needs a name",
            "s:13:11: after ']' comes nothing, or options in parentheses without a space before",
            "s:14:1: unknown directive '#inclde', did you mean '#include'?",
            "s:15:1: #include needs a file",
            "s:16:1: unknown section 'bus'",
        ]
    );
}

#[test]
fn columns_are_those_of_the_file_after_comments_too() {
    assert_eq!(
        conf_errors("[threadpool]\n;-- ü --; max_size ;-- ö --; = -5"),
        ["s:2:32: 'max_size' in section 'threadpool' cannot be '-5'"]
    );
}

#[test]
fn bad_numbers_say_what_is_allowed() {
    for value in ["-1", "+1", "2147483648", "99999999999999999999999999", "0x10", "1.5", "", "five", "1 2", "１"] {
        let errors = Config::from_stasis_conf(&format!("[threadpool]\nmax_size = {value}"), "s").unwrap_err();
        let problems: Vec<_> = errors.iter().map(|error| &error.problem).collect();
        let [Problem::BadValue { allowed, .. }] = &problems[..] else { panic!("{value}: {errors}") };
        assert_eq!(allowed, "a whole number from 0 to 2147483647");
    }
}

#[test]
fn sizes_that_are_not_given_follow_those_that_are() {
    assert_eq!(sizes(&conf("[threadpool]\nmax_size=3")), [3, 20, 3]);
    assert_eq!(sizes(&conf("[threadpool]\ninitial_size=80")), [80, 20, 80]);
    assert_eq!(sizes(&conf("[threadpool]\nmax_size=0\ninitial_size=80")), [80, 20, 0]);
    assert_eq!(
        conf_errors("[threadpool]\ninitial_size=80\nmax_size=9\n[taskpool]\nmax_size=2\nminimum_size=3\n"),
        [
            "s:2:14: initial_size 80 of section 'threadpool' is above its max_size 9",
            "s:6:14: minimum_size 3 of section 'taskpool' is above its max_size 2",
        ]
    );
}

#[test]
fn includes_stand_where_they_stand_relative_to_their_file() {
    let files = files([
        ("etc/stasis.conf", "[threadpool]\n#include \"sub/pool.conf\"\ninitial_size = 2\n#tryinclude <no.conf>\n"),
        ("etc/sub/pool.conf", "max_size = 9\n#include ../more.conf\n"),
        (
            "etc/more.conf",
            "idle_timeout_sec = 7\n[declined_message_types]\n#include d/*.conf\n#include d/b.conf\n[threadpool]\n",
        ),
        ("etc/d/a.conf", "decline = a\n"),
        ("etc/d/b.conf", "decline = b"),
        ("etc/d/.hidden.conf", "decline = c"),
        ("etc/d/d.txt", "decline = d"),
    ]);
    let config = Config::load_from("etc/stasis.conf", &files).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((sizes(&config), declined(&config)), ([2, 7, 9], vec!["a", "b"]));
}

#[test]
fn includes_that_cannot_be_are_errors_where_they_stand() {
    let files = files([
        ("a.conf", "[threadpool]\n#include b.conf\nmax_size = x\n"),
        ("b.conf", "initial_size = y\n #include ./x/../a.conf\n#include no.conf\n#include x/*.conf\n;--"),
    ]);
    assert_eq!(
        shown(&Config::load_from("a.conf", &files).unwrap_err()),
        [
            "b.conf:1:16: 'initial_size' in section 'threadpool' cannot be 'y'",
            "b.conf:2:2: './x/../a.conf' includes itself",
            "b.conf:3:1: no file 'no.conf' to include",
            "b.conf:4:1: no file 'x/*.conf' to include",
            "b.conf:5:1: this block comment never ends",
            "a.conf:3:12: 'max_size' in section 'threadpool' cannot be 'x'",
        ]
    );
}

#[test]
fn includes_end_however_they_are_nested() {
    // Each file includes the next one twice: 2^n reads without a limit.
    let mut many = BTreeMap::new();
    for n in 0..40 {
        many.insert(format!("{n}.conf").into(), format!("#include {0}.conf\n#include {0}.conf\n", n + 1));
    }
    let errors = Config::load_from("0.conf", &many).unwrap_err();
    assert!(errors.iter().all(|error| matches!(error.problem, Problem::TooMuch(_))), "{errors}");
}

#[test]
fn inheritance_ends_however_it_grows() {
    let mut text = "[t0](!)\nmax_size=1\n".to_owned();
    for n in 0..60 {
        text += &format!("[t{}](!,t{n},t{n})\n", n + 1);
    }
    let errors = Config::from_stasis_conf(&text, "s").unwrap_err();
    assert!(errors.iter().all(|error| matches!(error.problem, Problem::TooMuch(_))), "{errors}");
}

#[test]
fn sections_end_however_many_there_are() {
    let line =
        |n: usize| if n.is_multiple_of(20) { format!("[x](nobody{n})\n") } else { format!("[t{n}](!)\n[t{n}](+)\n") };
    let text: String = (0..20_000).map(line).collect();
    let errors = Config::from_stasis_conf(&text, "s").unwrap_err();
    assert!(errors.iter().count() == 100 && errors.omitted() > 0);
    let many = (0..10_001).fold(String::new(), |text, n| text + &format!("[t{n}](!)\n"));
    let errors = Config::from_stasis_conf(&many, "s").unwrap_err();
    assert!(errors.iter().all(|error| matches!(error.problem, Problem::TooMuch(_))), "{errors}");
}

#[test]
fn of_sections_of_one_name_the_latest_is_meant() {
    let config = conf("[t](!)\nmax_size=7\n[T](!)\nmax_size=8\n[threadpool](t)\n[t](+)\nmax_size=9\n[taskpool](t)\n");
    assert_eq!((config.threadpool.max_size, config.taskpool.max_size), (8, 9));
}

#[test]
fn exec_is_refused() {
    let errors = Config::from_stasis_conf("#exec /bin/true\n#EXEC \"/bin/true\"", "s").unwrap_err();
    assert!(errors.iter().all(|error| error.problem == Problem::Exec) && errors.iter().count() == 2);
}

#[test]
fn includes_read_regular_files_of_the_disk_only() {
    let folder = std::env::temp_dir().join(format!("stasis-conf-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("d")).unwrap();
    // Not UTF-8 in a comment is harmless, in a name it is not.
    std::fs::write(folder.join("d/pool.conf"), b"[threadpool]\nmax_size = 6 ; f\xfcnf\n").unwrap();
    std::fs::write(folder.join("stasis.conf"), "#include d/*.conf\n").unwrap();
    assert_eq!(sizes(&Config::load(folder.join("stasis.conf")).unwrap())[2], 6);
    std::fs::write(
        folder.join("bad.conf"),
        b"[declined_message_types]\ndecline = f\xfcnf\n#include d\n#include /dev/zero\n",
    )
    .unwrap();
    let errors = Config::load(folder.join("bad.conf")).unwrap_err();
    let problems: Vec<_> = errors.iter().map(|error| &error.problem).collect();
    assert!(
        matches!(&problems[..], [Problem::BadValue { .. }, Problem::Unreadable(_), Problem::Unreadable(_)]),
        "{errors}"
    );
    std::fs::write(folder.join("wide.conf"), b"\xff\xfe[\0").unwrap();
    assert!(shown(&Config::load(folder.join("wide.conf")).unwrap_err())[0].contains("UTF-16"));
    let same = folder.join("Stasis.TOML");
    std::fs::write(&same, "threadpool.max_size = 8").unwrap();
    assert_eq!(sizes(&Config::load(&same).unwrap())[2], 8);
    let position = |path: PathBuf| Config::load(path).unwrap_err().iter().next().unwrap().clone();
    assert_eq!(position(folder.join("stasis.yaml")).problem, Problem::UnknownForm);
    assert!(matches!(position(folder.join("none.conf")).problem, Problem::Unreadable(_)));
    assert_eq!(position(folder.join("none.conf")).position, None);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_files_of_ones_own_may_fail() {
    struct Broken;
    impl ConfigFiles for Broken {
        fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Err(std::io::Error::other("on fire"))
        }
        fn list(&self, _: &std::path::Path) -> std::io::Result<Vec<PathBuf>> {
            Err(std::io::Error::other("on fire"))
        }
    }
    let errors = Config::from_stasis_conf_in("#include a\n#tryinclude b\n#tryinclude *\n", "s", &Broken).unwrap_err();
    assert_eq!(shown(&errors), ["s:1:1: cannot be read: 'a': on fire", "s:2:1: cannot be read: 'b': on fire"]);
}

#[test]
fn toml_holds_everything() {
    let config = Config::from_toml(
        "bus = { name = 'pbx', lanes = 2, pinning = [0, 3], wait = 'busy_spin', ring_capacity = 2_048, memory_budget = 0x100_0000 }\n\
         [threadpool]\nmax_size = 9\n[taskpool]\nminimum_size = 1\n[declined_message_types]\ndecline = ['b', 'a', 'b']\n",
        "s",
    )
    .unwrap();
    assert_eq!((config.bus.name.as_deref(), config.bus.lanes), (Some("pbx"), Some(2)));
    assert_eq!((config.bus.pinning, config.bus.wait), (Some(Pinning::List(vec![0, 3])), Some(WaitStrategy::BusySpin)));
    assert_eq!((config.bus.ring_capacity, config.bus.memory_budget), (Some(2048), Some(16 << 20)));
    assert_eq!((config.threadpool.max_size, config.taskpool.minimum_size), (9, 1));
    assert_eq!(config.declined_types, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    let more = Config::from_toml(
        "[bus]\nwatchdog_usec = 100\nspare_threads = 0\nfeedback_limit = 32\ndepth_marks = [450, 500]\nage_marks_msec = 'off'\n",
        "s",
    )
    .unwrap()
    .bus;
    assert_eq!((more.watchdog, more.spare_threads), (Some(OrOff::On(Duration::from_micros(100))), Some(0)));
    assert_eq!((more.feedback_limit, more.depth_marks), (Some(OrOff::On(32)), Some(OrOff::On((450, 500)))));
    assert_eq!(more.age_marks, Some(OrOff::Off));
    let off = Config::from_toml("bus = { watchdog_usec = 'off', feedback_limit = 'off', depth_marks = 'off' }", "s");
    let off = off.unwrap().bus;
    assert_eq!(
        (off.watchdog, off.feedback_limit, off.depth_marks),
        (Some(OrOff::Off), Some(OrOff::Off), Some(OrOff::Off))
    );
    let one = Config::from_toml("declined_message_types.decline = 'x'", "s").unwrap();
    assert_eq!(declined(&one), ["x"]);
    for (text, wait) in
        [("adaptive", WaitStrategy::Adaptive), ("yield", WaitStrategy::Yield), ("park", WaitStrategy::Park)]
    {
        assert_eq!(Config::from_toml(&format!("bus.wait = '{text}'"), "s").unwrap().bus.wait, Some(wait));
    }
    for (text, pinning) in [("cores", Pinning::Cores), ("off", Pinning::Off)] {
        assert_eq!(Config::from_toml(&format!("bus.pinning = '{text}'"), "s").unwrap().bus.pinning, Some(pinning));
    }
}

#[test]
fn all_errors_of_a_toml_file_are_told_together() {
    let text = "buss = 1\nthreadpool = 3\n[bus]\nlane = 2\nlanes = 300\npinning = 'of'\nwait = 4\nname = ''\n\
                ring_capacity = -1\nmemory_budget = 99999999999999999999\n[taskpool]\nMax_Size = 1\nmax_size = '5'\n\
                initial_size = 1.5\nminimum_size = true\n[declined_message_types]\ndecline = ['ok', 3]\n";
    let expected = [
        "s:1:1: unknown section 'buss', did you mean 'bus'?",
        "s:2:14: 'threadpool' is a section, not an integer",
        "s:4:1: unknown key 'lane' in section 'bus', did you mean 'lanes'?",
        "s:5:9: 'lanes' in section 'bus' cannot be 300",
        "s:6:11: 'pinning' in section 'bus' cannot be 'of'",
        "s:7:8: 'wait' in section 'bus' cannot be 4",
        "s:8:8: 'name' in section 'bus' cannot be ''",
        "s:9:17: 'ring_capacity' in section 'bus' cannot be -1",
        "s:10:17: 'memory_budget' in section 'bus' cannot be 99999999999999999999",
        "s:12:1: unknown key 'Max_Size' in section 'taskpool', did you mean 'max_size'?",
        "s:13:12: 'max_size' in section 'taskpool' cannot be '5'",
        "s:14:16: 'initial_size' in section 'taskpool' cannot be a float",
        "s:15:16: 'minimum_size' in section 'taskpool' cannot be a boolean",
        "s:17:11: 'decline' in section 'declined_message_types' cannot be this list",
    ];
    assert_eq!(toml_errors(text), expected);
}

#[test]
fn settings_that_may_be_off_say_so() {
    let errors = Config::from_toml(
        "[bus]\nwatchdog_usec = 99\nfeedback_limit = 'of'\ndepth_marks = [2, 1]\nage_marks_msec = [1]\nspare_threads = 'off'\n",
        "s",
    );
    assert_eq!(
        errors.unwrap_err().to_string(),
        "s:2:17: 'watchdog_usec' in section 'bus' cannot be 99; it is 'off' or a whole number from 100 to 4294967295 (microseconds)\n\
         s:3:18: 'feedback_limit' in section 'bus' cannot be 'of'; it is 'off' or a whole number from 1 to 65535, did you mean 'off'?\n\
         s:4:15: 'depth_marks' in section 'bus' cannot be this list; it is 'off' or a list of a low and a high number of entries, from 1\n\
         s:5:18: 'age_marks_msec' in section 'bus' cannot be this list; it is 'off' or a list of a low and a high age, from 1 (milliseconds)\n\
         s:6:17: 'spare_threads' in section 'bus' cannot be 'off'; it is a whole number from 0 to 65535"
    );
}

#[test]
fn broken_toml_is_told_where_it_breaks_together_with_the_rest() {
    let told = toml_errors("[threadpool]\nmax_size = \ninitial_size = 3\ninitial_size = 4\n[bus]\nlanes = 0\n");
    for start in ["s:2:", "s:4:", "s:6:9: 'lanes'"] {
        assert!(told.iter().any(|error| error.starts_with(start)), "{start}: {told:?}");
    }
}

#[test]
fn many_errors_are_counted_and_a_hundred_told() {
    let text = (0..250).fold("[threadpool]\n".to_owned(), |text, n| text + &format!("x{n} = 1\n"));
    let errors = Config::from_stasis_conf(&text, "s").unwrap_err();
    assert_eq!((errors.iter().count(), errors.omitted()), (100, 150));
    assert!(errors.to_string().ends_with("\nand 150 more"));
}

#[test]
fn an_inherited_error_is_told_once() {
    assert_eq!(conf_errors("[t](!)\nmax_size=x\n[threadpool](t)\n[threadpool](t)\n").len(), 1);
}

#[test]
fn the_sample_is_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stasis.toml");
    let config = Config::load(path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(declined(&config), ["agi_exec_start", "ast_channel_varset_type"]);
    let pools = Config::default();
    assert_eq!(
        (config.threadpool, config.taskpool),
        (pools.threadpool, pools.taskpool),
        "the sample shows the defaults"
    );
    assert!(config.bus.memory_budget == Some(256 << 20) && config.bus.ring_capacity == Some(4096));
}

#[test]
fn declined_types_are_never_made_and_cost_nothing() {
    let config = conf("[declined_message_types]\ndecline = unloved\ndecline = not_known_to_anybody\n");
    let bus = config.apply(Bus::builder().lanes(1).pinning(Pinning::Off).decline_type("builders_own")).build().unwrap();
    for name in ["unloved", "not_known_to_anybody", "builders_own"] {
        assert!(bus.declines_type(name));
        assert_eq!(MessageType::<u64>::new(&bus, name).unwrap_err(), TypeError::Declined(name.into()));
    }
    assert!(!bus.declines_type("Unloved"), "names of types are compared as they are");
    let topic = bus.topic("t").unwrap();
    let _listener = topic.subscribe(|_| ()).unwrap();
    let before = bus.stats();
    assert!(MessageType::<u64>::builder("unloved").to_json(|_| None).create(&bus).is_err());
    assert_eq!(bus.stats(), before);
    assert!(MessageType::<u64>::new(&bus, "loved").is_ok());
}

/// All names a `stasis.conf` of Asterisk 18 shows as an example.
const ASTERISK_18: &str = include_str!("common/asterisk18_types.txt");

#[test]
fn every_type_of_asterisk_can_be_declined() {
    let text = ASTERISK_18
        .lines()
        .fold("[declined_message_types]\n".to_owned(), |text, name| text + &format!(" decline={name}\n"));
    let config = conf(&text);
    assert_eq!(config.declined_types.len(), ASTERISK_18.lines().count());
    assert!(config.declined_types.len() > 100);
    let bus = config.apply(Bus::builder().lanes(1).pinning(Pinning::Off)).build().unwrap();
    for name in ASTERISK_18.lines() {
        assert_eq!(MessageType::<u64>::new(&bus, name).unwrap_err(), TypeError::Declined(name.into()));
    }
}

#[test]
fn types_of_the_bus_itself_can_be_declined_too() {
    let names = ["stasis_subscription_change_type", "stasis_cache_update_type", "stasis_cache_clear_type"];
    for declined in [None, Some(0), Some(1), Some(2)] {
        let builder = Bus::builder().lanes(1).pinning(Pinning::Off);
        let bus = declined.iter().fold(builder, |builder, at| builder.decline_type(names[*at])).build().unwrap();
        let kind = MessageType::<u64>::new(&bus, "state").unwrap();
        let topic = bus.topic("t").unwrap();
        let cache = Cache::builder().id(|message| message.payload::<u64>().map(|_| "id".into())).build();
        let caching = CachingTopic::new(&topic, &cache).unwrap();
        let (changes, updates) = (MessageSink::with_changes(), MessageSink::new());
        let inline = |sink: &MessageSink| sink.handler();
        let watch = topic.subscriber().delivery(Delivery::Inline).accept(SubscriptionChange::message_type());
        let watch = watch.subscribe_handler(inline(&changes)).unwrap();
        let told = caching.topic().subscriber().delivery(Delivery::Inline).accept(CacheUpdate::message_type());
        let _told = told.subscribe_handler(inline(&updates)).unwrap();

        drop(topic.subscribe(|_| ()).unwrap());
        assert_eq!(changes.count(), if declined == Some(0) { 0 } else { 3 }, "its own beginning, another one's ends");
        topic.publish(kind.message(1)).unwrap();
        assert!(cache.get(&kind, "id").is_some());
        topic.publish(CacheClear::message(kind.message(1))).unwrap();
        assert_eq!(cache.is_empty(), declined != Some(2));
        let expected = match declined {
            Some(1) => 0,
            Some(2) => 1,
            _ => 2,
        };
        assert_eq!((updates.count(), caching.refused()), (expected, 0), "{declined:?}");
        let followed = caching.follow().subscribe(|_, _| ());
        match followed {
            Err(FollowError::Declined(name)) => assert_eq!((declined, &*name), (Some(1), names[1])),
            other => assert!(other.is_ok() && declined != Some(1)),
        }
        watch.unsubscribe_and_join(Duration::from_secs(60)).unwrap();
        assert!(changes.is_ended(), "the final message comes all the same");
    }
}

#[test]
fn pools_get_the_sizes_of_the_file() {
    let config =
        conf("[threadpool]\ninitial_size=3\nmax_size=4\n[taskpool]\nminimum_size=2\ninitial_size=1\nmax_size=0\n");
    let pool = config.threadpool.apply(TaskPool::builder("threads")).build().unwrap();
    assert_eq!(pool.size(), 3);
    pool.set_size(100).unwrap();
    assert_eq!(pool.size(), 4);
    let pool = config.taskpool.apply(TaskPool::builder("tasks").max_size(3)).build().unwrap();
    assert_eq!(pool.size(), 2, "not fewer than the minimum");
    pool.set_size(9).unwrap();
    assert_eq!(pool.size(), 9, "no limit");
}

#[test]
fn a_file_as_it_grew_over_the_years_is_read() {
    // Everything the format has, at once; CRLF, tabs, a mark, old comments.
    let text = "\u{feff};\r\n; Stasis\r\n;\r\n\r\n;--\r\n[threadpool]\r\nmax_size = 1\r\n--;\r\n\
                [sizes](!)\t\t; a template\r\ninitial_size\t=>\t2\r\nidle_timeout_sec=60\r\n\
                [small](!,sizes)\r\nmax_size =8 ;per core\r\n[ThreadPool](small) ;--- ours\r\n\
                Idle_Timeout_Sec => 0\r\n\r\n[declined_message_types]\r\n;decline=kept_type\r\n\
                decline=ast_channel_varset_type\r\n  decline => agi_exec_start_type ; and its end\r\n\
                DECLINE = agi_exec_end_type\r\n[threadpool](+)\r\ninitial_size=3\r\n\
                [declined_message_types](+)\r\ndecline=mcid_type\r\n";
    let config = conf(text);
    assert_eq!(sizes(&config), [3, 0, 8]);
    assert_eq!(declined(&config), ["agi_exec_end_type", "agi_exec_start_type", "ast_channel_varset_type", "mcid_type"]);
    let unix = text.replace("\r\n", "\n");
    assert_eq!(conf(&unix), config);
    // Columns in a file with CRLF are those an editor shows.
    assert_eq!(
        conf_errors("\u{feff}[threadpool]\r\n\tmax_size\t=\tten\r\n"),
        ["s:2:13: 'max_size' in section 'threadpool' cannot be 'ten'"]
    );
}

#[test]
fn what_a_file_says_replaces_the_builders_settings_and_the_rest_stays() {
    let builder = || Bus::builder().name("own").lanes(2).pinning(Pinning::Off);
    let bus = Config::default().apply(builder()).build().unwrap();
    assert_eq!((bus.name(), bus.lanes()), ("own", 2));
    let text = "[bus]\nname = 'told'\nlanes = 1\npinning = 'off'\nwait = 'park'\nring_capacity = 1024\nmemory_budget = 1_000_000\n";
    let told = Config::from_toml(text, "s").unwrap();
    let bus = told.apply(builder().lanes(3)).build().unwrap();
    assert_eq!((bus.name(), bus.lanes()), ("told", 1));
    let loops = Config::from_toml("bus = { feedback_limit = 1, watchdog_usec = 'off' }", "s").unwrap();
    let bus = loops.apply(builder()).build().unwrap();
    let (kind, topic) = (MessageType::<u64>::new(&bus, "n").unwrap(), bus.topic("t").unwrap());
    let (again, echo, seen) = (topic.clone(), kind.clone(), MessageSink::new());
    let mut keep = seen.handler();
    let echoing = topic.subscriber().accept(&kind).subscribe(move |received| {
        stasis_bus::Handler::handle(&mut keep, received);
        let _ = again.publish(echo.message(1));
    });
    assert!(echoing.is_ok());
    topic.publish(kind.message(0)).unwrap();
    seen.wait_for_count(2, Duration::from_secs(60)).unwrap();
    seen.should_stay(2, Duration::from_millis(20)).unwrap();
    let poor = Config::from_toml("bus.memory_budget = 1", "s").unwrap();
    assert!(poor.apply(builder()).build().is_err(), "the budget reaches the bus, which refuses it");
}

/// What a file says of the bus, the same set by hand, and the same asked of a builder.
type Setting = (&'static str, fn(&mut BusSettings), fn(BusBuilder) -> BusBuilder);

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Every setting of the bus, each with all forms its value may have, at the edges of what is allowed.
const SETTINGS: [Setting; 26] = [
    ("name = 'pbx \"1\"'", |bus| bus.name = Some("pbx \"1\"".into()), |builder| builder.name("pbx \"1\"")),
    ("lanes = 1", |bus| bus.lanes = Some(1), |builder| builder.lanes(1)),
    ("lanes = 256", |bus| bus.lanes = Some(256), |builder| builder.lanes(256)),
    ("pinning = \"cores\"", |bus| bus.pinning = Some(Pinning::Cores), |builder| builder.pinning(Pinning::Cores)),
    ("pinning = \"off\"", |bus| bus.pinning = Some(Pinning::Off), |builder| builder.pinning(Pinning::Off)),
    (
        "pinning = [3, 0, 65535]",
        |bus| bus.pinning = Some(Pinning::List(vec![3, 0, 65535])),
        |builder| builder.pinning(Pinning::List(vec![3, 0, 65535])),
    ),
    ("wait = \"adaptive\"", |bus| bus.wait = Some(WaitStrategy::Adaptive), |b| b.wait(WaitStrategy::Adaptive)),
    ("wait = \"busy_spin\"", |bus| bus.wait = Some(WaitStrategy::BusySpin), |b| b.wait(WaitStrategy::BusySpin)),
    ("wait = \"park\"", |bus| bus.wait = Some(WaitStrategy::Park), |builder| builder.wait(WaitStrategy::Park)),
    ("wait = \"yield\"", |bus| bus.wait = Some(WaitStrategy::Yield), |builder| builder.wait(WaitStrategy::Yield)),
    ("ring_capacity = 1", |bus| bus.ring_capacity = Some(1), |builder| builder.ring_capacity(1)),
    ("ring_capacity = 4194304", |bus| bus.ring_capacity = Some(1 << 22), |builder| builder.ring_capacity(1 << 22)),
    (
        "memory_budget = 9223372036854775807",
        |bus| bus.memory_budget = Some(i64::MAX as usize),
        |builder| builder.memory_budget(i64::MAX as usize),
    ),
    ("watchdog_usec = \"off\"", |bus| bus.watchdog = Some(OrOff::Off), |builder| builder.watchdog(None)),
    (
        "watchdog_usec = 4294967295",
        |bus| bus.watchdog = Some(OrOff::On(Duration::from_micros(u32::MAX.into()))),
        |builder| builder.watchdog(Duration::from_micros(u32::MAX.into())),
    ),
    ("spare_threads = 0", |bus| bus.spare_threads = Some(0), |builder| builder.spare_threads(0)),
    ("spare_threads = 65535", |bus| bus.spare_threads = Some(65535), |builder| builder.spare_threads(65535)),
    ("feedback_limit = \"off\"", |bus| bus.feedback_limit = Some(OrOff::Off), |builder| builder.feedback_limit(None)),
    (
        "feedback_limit = 65535",
        |bus| bus.feedback_limit = Some(OrOff::On(u16::MAX)),
        |builder| builder.feedback_limit(u16::MAX),
    ),
    // Of the two kinds of marks the one that is not given is as by default, whatever the builder had.
    (
        "depth_marks = [1, 4294967295]",
        |bus| bus.depth_marks = Some(OrOff::On((1, u32::MAX.into()))),
        |builder| builder.water_marks(WaterMarks::default().depth(1, u32::MAX.into())),
    ),
    (
        "depth_marks = \"off\"",
        |bus| bus.depth_marks = Some(OrOff::Off),
        |builder| builder.water_marks(WaterMarks::default()),
    ),
    (
        "age_marks_msec = [5, 5]",
        |bus| bus.age_marks = Some(OrOff::On((MS(5), MS(5)))),
        |builder| builder.water_marks(WaterMarks::none().age(MS(5), MS(5))),
    ),
    (
        "age_marks_msec = \"off\"",
        |bus| bus.age_marks = Some(OrOff::Off),
        |builder| builder.water_marks(WaterMarks::none()),
    ),
    (
        "age_marks_msec = \"off\"\ndepth_marks = [2, 3]",
        |bus| (bus.age_marks, bus.depth_marks) = (Some(OrOff::Off), Some(OrOff::On((2, 3)))),
        |builder| builder.water_marks(WaterMarks::none().depth(2, 3)),
    ),
    (
        "age_marks_msec = [6, 7]\ndepth_marks = \"off\"",
        |bus| (bus.age_marks, bus.depth_marks) = (Some(OrOff::On((MS(6), MS(7)))), Some(OrOff::Off)),
        |builder| builder.water_marks(WaterMarks::none().age(MS(6), MS(7))),
    ),
    (
        "age_marks_msec = [6, 7]\ndepth_marks = [2, 3]",
        |bus| (bus.age_marks, bus.depth_marks) = (Some(OrOff::On((MS(6), MS(7)))), Some(OrOff::On((2, 3)))),
        |builder| builder.water_marks(WaterMarks::none().age(MS(6), MS(7)).depth(2, 3)),
    ),
];

/// Two builders that differ in every setting: a setting that is not put in is seen with one of them.
fn builders() -> [BusBuilder; 2] {
    let other = Bus::builder().name("own").lanes(2).pinning(Pinning::List(vec![7])).wait(WaitStrategy::Yield);
    let other = other.ring_capacity(2048).memory_budget(1 << 20).watchdog(MS(3)).spare_threads(3).feedback_limit(3);
    [Bus::builder(), other.water_marks(WaterMarks::none().depth(3, 4).age(MS(1), MS(2)))]
}

#[test]
fn every_setting_of_the_bus_is_read_written_read_again_and_put_into_a_bus() {
    for (lines, by_hand, asked) in SETTINGS {
        let read = Config::from_toml(&format!("[bus]\n{lines}\n"), "s").unwrap_or_else(|errors| panic!("{errors}"));
        let mut expected = Config::default();
        by_hand(&mut expected.bus);
        assert_eq!(read, expected, "{lines}");
        let written = read.to_toml().unwrap_or_else(|errors| panic!("{lines}: {errors}"));
        let section: Vec<_> = written.lines().skip_while(|line| *line != "[bus]").skip(1).collect();
        assert_eq!(section.iter().take_while(|line| !line.is_empty()).copied().collect::<Vec<_>>().join("\n"), lines);
        assert_eq!(Config::from_toml(&written, "s").unwrap(), expected, "{written}");
        assert_eq!(conf(&read.to_stasis_conf().unwrap()), Config::default(), "which has no place for it");
        for builder in builders() {
            // A builder cannot be compared, but what it holds can be shown.
            let (found, wanted) = (read.apply(builder.clone()), asked(builder));
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"), "{lines}");
        }
    }
    for builder in builders() {
        assert_eq!(format!("{:?}", Config::default().apply(builder.clone())), format!("{builder:?}"), "nothing said");
    }
}

#[test]
fn each_value_that_cannot_be_read_is_refused_with_its_place_and_cause() {
    let pinning = "'cores', 'off' or a list of core numbers from 0 to 65535";
    let depth = "'off' or a list of a low and a high number of entries, from 1";
    let age = "'off' or a list of a low and a high age, from 1 (milliseconds)";
    let watchdog = "'off' or a whole number from 100 to 4294967295 (microseconds)";
    let limit = "'off' or a whole number from 1 to 65535";
    let cases = [
        ("name", "\"a\\nb\"", "'a\nb'", "a name, without control characters", None),
        ("name", "['a']", "this list", "a name, without control characters", None),
        ("lanes", "257", "257", "a whole number from 1 to 256", None),
        ("pinning", "3", "3", pinning, None),
        ("pinning", "[]", "this list", pinning, None),
        ("pinning", "[0, 65536]", "this list", pinning, None),
        ("pinning", "[0, 'x']", "this list", pinning, None),
        ("pinning", "'core'", "'core'", pinning, Some("cores")),
        ("wait", "['park']", "this list", "one of adaptive, busy_spin, park, yield", None),
        ("ring_capacity", "4194305", "4194305", "a whole number from 1 to 4194304", None),
        ("memory_budget", "0", "0", "a whole number from 1 to 9223372036854775807", None),
        ("watchdog_usec", "4294967296", "4294967296", watchdog, None),
        ("watchdog_usec", "1.5", "a float", watchdog, None),
        ("spare_threads", "65536", "65536", "a whole number from 0 to 65535", None),
        ("feedback_limit", "0", "0", limit, None),
        ("feedback_limit", "'on'", "'on'", limit, None),
        ("depth_marks", "500", "500", depth, None),
        ("depth_marks", "[0, 1]", "this list", depth, None),
        ("depth_marks", "[1, 2, 3]", "this list", depth, None),
        ("depth_marks", "[1, 4294967296]", "this list", depth, None),
        ("age_marks_msec", "[1, '2']", "this list", age, None),
        ("age_marks_msec", "'off '", "'off '", age, Some("off")),
    ];
    for (key, written, value, allowed, suggestion) in cases {
        let read = Config::from_toml(&format!("# x\n[bus]\n {key} = {written}\n"), "etc/s.toml");
        let errors = read.expect_err(written);
        let [error] = &errors.iter().collect::<Vec<_>>()[..] else { panic!("{key} = {written}: {errors}") };
        let place = (error.file.to_str(), error.position);
        assert_eq!(place, (Some("etc/s.toml"), Some(Position { line: 3, column: key.len() + 5 })), "{errors}");
        let expected = Problem::BadValue {
            section: "bus".into(),
            key: key.into(),
            value: value.into(),
            allowed: allowed.into(),
            suggestion,
        };
        assert_eq!(error.problem, expected);
    }
}

#[test]
fn each_value_set_by_hand_that_toml_cannot_hold_is_refused() {
    type Case = (fn(&mut BusSettings), Result<(&'static str, &'static str), Problem>);
    let unwritable = Err(Problem::Syntax("a value that cannot be written".into()));
    let cases: [Case; 13] = [
        (|bus| bus.name = Some(" x".into()), Ok(("name", "' x'"))),
        (|bus| bus.lanes = Some(0), Ok(("lanes", "0"))),
        (|bus| bus.pinning = Some(Pinning::List(vec![])), Ok(("pinning", "this list"))),
        (|bus| bus.pinning = Some(Pinning::List(vec![usize::MAX])), Ok(("pinning", "this list"))),
        (|bus| bus.ring_capacity = Some(usize::MAX), Ok(("ring_capacity", "9223372036854775807"))),
        (|bus| bus.memory_budget = Some(usize::MAX), unwritable.clone()),
        (|bus| bus.watchdog = Some(OrOff::On(Duration::from_nanos(100_500))), unwritable.clone()),
        (|bus| bus.watchdog = Some(OrOff::On(Duration::MAX)), Ok(("watchdog_usec", "9223372036854775807"))),
        (|bus| bus.spare_threads = Some(65536), Ok(("spare_threads", "65536"))),
        (|bus| bus.feedback_limit = Some(OrOff::On(0)), Ok(("feedback_limit", "0"))),
        (|bus| bus.depth_marks = Some(OrOff::On((2, 1))), Ok(("depth_marks", "this list"))),
        (|bus| bus.age_marks = Some(OrOff::On((MS(1), Duration::from_micros(1500)))), unwritable),
        (|bus| bus.age_marks = Some(OrOff::On((Duration::ZERO, MS(1)))), Ok(("age_marks_msec", "this list"))),
    ];
    for (set, expected) in cases {
        let mut config = Config::default();
        set(&mut config.bus);
        let errors = config.to_toml().expect_err("it could not be read again");
        let [error] = &errors.iter().collect::<Vec<_>>()[..] else { panic!("{errors}") };
        assert_eq!(error.file.to_str(), Some("toml"), "{errors}");
        match (&error.problem, expected) {
            (Problem::BadValue { section, key, value, .. }, Ok(refused)) => {
                assert_eq!((section.as_str(), (key.as_str(), value.as_str())), ("bus", refused));
                assert_eq!(error.position, Some(Position { line: 2, column: key.len() + 4 }), "{errors}");
            }
            (problem, expected) => assert_eq!((problem, error.position), (&expected.expect_err("a value"), None)),
        }
        assert!(config.to_stasis_conf().is_ok(), "which has no place for it");
    }
}

#[test]
fn a_hundred_thousand_settings_are_read_and_one_more_is_refused() {
    let text = |lines: usize| "[threadpool]\n".to_owned() + &"max_size=7\n".repeat(lines);
    assert_eq!(conf(&text(100_000)).threadpool.max_size, 7);
    let errors = Config::from_stasis_conf(&(text(100_001) + "[nonsense]\n"), "s").unwrap_err();
    let [error] = &errors.iter().collect::<Vec<_>>()[..] else { panic!("once, and nothing behind it: {errors}") };
    assert_eq!(error.position, Some(Position { line: 100_002, column: 1 }));
    assert_eq!(error.problem, Problem::TooMuch("more than 100000 settings, inherited ones counted"));
}

#[test]
fn an_included_file_in_utf_16_is_refused_where_it_is_included() {
    struct Wide;
    impl ConfigFiles for Wide {
        fn read(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Ok(match path.to_str().unwrap() {
                "etc/little.conf" => b"\xff\xfem\0".to_vec(),
                "etc/big.conf" => b"\xfe\xff\0m".to_vec(),
                _ => b"max_size = 3\n".to_vec(),
            })
        }
        fn list(&self, _: &std::path::Path) -> std::io::Result<Vec<PathBuf>> {
            Ok(["etc/big.conf", "etc/fine.conf"].map(PathBuf::from).to_vec())
        }
    }
    let text = "[threadpool]\n #include little.conf\n#tryinclude *.conf\ninitial_size = 4\n";
    let errors = Config::from_stasis_conf_in(text, "etc/s.conf", &Wide).unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| (error.file.to_str().unwrap(), error.position.unwrap())).collect();
    let at = |line, column| Position { line, column };
    assert_eq!(told, [("etc/s.conf", at(2, 2)), ("etc/s.conf", at(3, 1)), ("etc/s.conf", at(4, 16))]);
    let wide = |path: &str| Problem::Unreadable(format!("'{path}': UTF-16 is not read, only UTF-8"));
    let problems: Vec<_> = errors.iter().map(|error| &error.problem).collect();
    assert_eq!(problems[..2], [&wide("etc/little.conf"), &wide("etc/big.conf")]);
    assert!(
        matches!(problems[2], Problem::Contradiction { value: 4, limit: 3, .. }),
        "the other files and lines are read all the same: {errors}"
    );
}

#[test]
fn near_misses_of_long_names_are_not_looked_for() {
    for (known, given, is_told) in [(64, 63, true), (63, 64, true), (65, 64, false), (64, 65, false)] {
        let (known, name) = ("x".repeat(known), "x".repeat(given));
        let text = format!("[{known}](!)\n[threadpool]({name})\n");
        let errors = Config::from_stasis_conf(&text, "s").unwrap_err();
        let problems: Vec<_> = errors.iter().map(|error| &error.problem).collect();
        assert_eq!(problems, [&Problem::NoTemplate { name, suggestion: is_told.then_some(known) }]);
    }
}

#[test]
fn what_is_set_by_hand_and_cannot_be_read_is_not_written() {
    let mut config = Config::default();
    config.bus.lanes = Some(1000);
    assert!(config.to_toml().is_err());
    config.bus.lanes = Some(2);
    config.declined_types.insert(" x\n[threadpool]\nmax_size = 1".to_owned());
    assert!(config.to_toml().is_err() && config.to_stasis_conf().is_err());
    config.declined_types = BTreeSet::from(["x\n[threadpool]\nmax_size = 60".to_owned()]);
    assert!(config.to_stasis_conf().is_err(), "it would be read as something else");
    config.declined_types.clear();
    config.threadpool.initial_size = 51;
    assert!(config.to_toml().is_err() && config.to_stasis_conf().is_err());
    config.threadpool.initial_size = 50;
    let text = config.to_toml().unwrap();
    assert_eq!(Config::from_toml(&text, "s").unwrap(), config);
    let mut from_conf = conf(&config.to_stasis_conf().unwrap());
    assert_ne!(from_conf, config, "stasis.conf has no place for the bus");
    from_conf.bus = config.bus.clone();
    assert_eq!(from_conf, config);
}

#[test]
fn what_is_read_is_read_again_after_writing() {
    for text in [
        INSTALLED,
        "[threadpool]\nmax_size=0\ninitial_size=2147483647\n[taskpool]\nmax_size=1\n",
        "[declined_message_types]\ndecline = \\;--x\ndecline = [y](+)\ndecline = #exec z\ndecline = =\ndecline => =>\ndecline= >\n",
        "[declined_message_types]\ndecline = \"quoted\\n\"\ndecline = 'x'\ndecline = \\\\;\ndecline = ü\ndecline = --\\;\n",
    ] {
        assert!(Config::from_stasis_conf(text, "s").is_ok(), "{text}");
        config_check::check(text);
    }
    config_check::check(
        "bus = { name = 'x', pinning = [1], wait = 'yield', lanes = 256 }\ndeclined_message_types.decline = ['\\', ';']",
    );
}

/// Pieces that matter to the reader, so that random texts are often nearly right.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "[threadpool]",
        "[taskpool]",
        "[declined_message_types]",
        "[bus]",
        "[t](!)",
        "(t)",
        "(+)",
        "[threadpool](t)",
        "max_size",
        "initial_size",
        "minimum_size",
        "idle_timeout_sec",
        "decline",
        "name",
        "lanes",
        "pinning",
        "wait",
        "watchdog_usec = 2000\n",
        "feedback_limit = 'off'\n",
        "depth_marks = [1, 2]\n",
        "age_marks_msec = [5, 5]\n",
        "spare_threads",
        " = ",
        "=",
        "=>",
        "5",
        "0",
        "70",
        "-1",
        "99999999999",
        "\n",
        "\r\n",
        "\n",
        "\n",
        ";",
        "\\;",
        ";--",
        "--;",
        "#include ",
        "pool.conf",
        "again.conf",
        "main.conf",
        "*.conf",
        "#exec",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        "x",
        "ü",
        "\u{feff}",
        "\\",
        " ",
    ];
    prop_oneof![8 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

/// Whole lines that are right, in any order.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["max_size", "initial_size", "idle_timeout_sec"]);
    prop_oneof![
        prop::sample::select(vec!["[threadpool]", "[taskpool]", "[t](!)", "[t](+)", "[threadpool](t)"])
            .prop_map(str::to_owned),
        (key, 0..100u32).prop_map(|(key, value)| format!("{key} = {value}")),
        "[a-z\\\\;=>\\[# ]{1,8}".prop_map(|name| format!("[declined_message_types]\ndecline = x{name}\n[threadpool]")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 5 } else { 600 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_configuration_or_has_errors_with_places(text in prop::collection::vec(piece(), 0..40)) {
        config_check::check(&text.concat());
    }

    #[test]
    fn what_is_nearly_right_is_read_again_equally(text in prop::collection::vec(line(), 0..20)) {
        config_check::check(&format!("[t](!)\n[threadpool]\n{}", text.join("\n")));
    }
}
