//! `docs/stasis-parity.md` names tests that exist, one at least for each function.
#![cfg(feature = "ext")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What the public headers of Asterisk 18 declare (taskpool.h: of 20.17).
const DECLARED: &str = "
    stasis.h: stasis_message_type_create stasis_message_type_name stasis_message_type_hash stasis_message_type_id
        stasis_message_type_declined stasis_message_type_available_formatters stasis_message_create
        stasis_message_create_full stasis_message_eid stasis_message_type stasis_message_data
        stasis_message_timestamp stasis_message_to_json stasis_message_to_ami stasis_message_can_be_ami
        stasis_message_to_event stasis_topic_create stasis_topic_create_with_detail stasis_topic_get
        stasis_topic_uniqueid stasis_topic_name stasis_topic_detail stasis_topic_subscribers stasis_publish
        stasis_publish_sync stasis_subscription_cb stasis_subscription_cb_noop stasis_subscribe
        stasis_subscribe_pool stasis_subscription_accept_message_type stasis_subscription_decline_message_type
        stasis_subscription_set_filter stasis_subscription_accept_formatters stasis_unsubscribe
        stasis_subscription_set_congestion_limits stasis_subscription_join stasis_subscription_is_done
        stasis_unsubscribe_and_join stasis_forward_all stasis_forward_cancel stasis_subscription_uniqueid
        stasis_subscription_is_subscribed stasis_subscription_final_message stasis_subscription_change
        stasis_subscription_change_type stasis_topic_pool_create stasis_topic_pool_get_topic
        stasis_topic_pool_delete_topic stasis_topic_pool_topic_exists stasis_cache_update_type stasis_cache_update
        stasis_cache_clear_type stasis_cache stasis_cache_entry stasis_caching_topic snapshot_get_id
        cache_aggregate_calc_fn cache_aggregate_publish_fn stasis_cache_entry_get_aggregate
        stasis_cache_entry_get_local stasis_cache_entry_get_remote stasis_cache_create stasis_cache_create_full
        stasis_caching_topic_create stasis_caching_unsubscribe stasis_caching_unsubscribe_and_join
        stasis_caching_get_topic stasis_caching_accept_message_type stasis_caching_set_filter
        stasis_cache_clear_create stasis_cache_get stasis_cache_get_by_eid stasis_cache_get_all stasis_cache_dump
        stasis_cache_dump_by_eid stasis_cache_dump_all ast_multi_user_event_type ast_multi_object_blob_create
        ast_multi_object_blob_add ast_multi_object_blob_single_channel_publish stasis_log_bad_type_access
        STASIS_MESSAGE_TYPE_DEFN STASIS_MESSAGE_TYPE_DEFN_LOCAL STASIS_MESSAGE_TYPE_INIT
        STASIS_MESSAGE_TYPE_CLEANUP STASIS_UMOS_MAX stasis_init stasis_cache_init stasis_config_init
        stasis_message_sanitizer stasis_message_vtable stasis_message_type_result
        stasis_subscription_message_filter stasis_subscription_message_formatters
        stasis_user_multi_object_snapshot_type
    stasis_message_router.h: stasis_message_router_create stasis_message_router_create_pool
        stasis_message_router_unsubscribe stasis_message_router_unsubscribe_and_join
        stasis_message_router_is_done stasis_message_router_publish_sync
        stasis_message_router_set_congestion_limits stasis_message_router_add
        stasis_message_router_add_cache_update stasis_message_router_remove
        stasis_message_router_remove_cache_update stasis_message_router_set_default
        stasis_message_router_set_formatters_default stasis_message_router_accept_formatters
    stasis_cache_pattern.h: stasis_cp_all stasis_cp_all_create stasis_cp_all_topic stasis_cp_all_topic_cached
        stasis_cp_all_cache stasis_cp_single stasis_cp_single_create stasis_cp_sink_create
        stasis_cp_single_unsubscribe stasis_cp_single_topic stasis_cp_single_topic_cached
        stasis_cp_single_accept_message_type stasis_cp_single_set_filter
    stasis_state.h: stasis_state_manager stasis_state_manager_create stasis_state_all_topic stasis_state_topic
        stasis_state_subscriber stasis_state_add_subscriber stasis_state_subscribe_pool stasis_state_unsubscribe
        stasis_state_unsubscribe_and_join stasis_state_subscriber_id stasis_state_subscriber_topic
        stasis_state_subscriber_data stasis_state_subscriber_subscription stasis_state_publisher
        stasis_state_add_publisher stasis_state_publisher_id stasis_state_publisher_topic stasis_state_publish
        stasis_state_publish_by_id stasis_state_remove_publish_by_id stasis_state_observer on_subscribe
        on_unsubscribe stasis_state_add_observer stasis_state_remove_observer on_stasis_state
        stasis_state_callback_all stasis_state_callback_subscribed
    stasis_test.h: stasis_message_sink stasis_message_sink_create stasis_message_sink_cb
        stasis_message_sink_wait_for_count stasis_wait_cb stasis_message_sink_wait_for
        stasis_message_sink_should_stay stasis_test_message_create stasis_test_message_type
        STASIS_SINK_DEFAULT_WAIT
    taskprocessor.h: ast_tps_options ast_taskprocessor_listener_callbacks ast_taskprocessor_listener_get_tps
        ast_taskprocessor_listener_get_user_data ast_taskprocessor_listener_alloc ast_taskprocessor_get
        ast_taskprocessor_create_with_listener ast_taskprocessor_set_local ast_taskprocessor_unreference
        ast_taskprocessor_push ast_taskprocessor_local ast_taskprocessor_push_local ast_taskprocessor_suspend
        ast_taskprocessor_unsuspend ast_taskprocessor_is_suspended ast_taskprocessor_execute
        ast_taskprocessor_is_task ast_taskprocessor_seq_num ast_taskprocessor_name_append
        ast_taskprocessor_build_name ast_taskprocessor_name ast_taskprocessor_size ast_taskprocessor_alert_get
        ast_taskprocessor_get_subsystem_alert ast_taskprocessor_alert_set_levels AST_TASKPROCESSOR_MAX_NAME
        AST_TASKPROCESSOR_HIGH_WATER_LEVEL
    threadpool.h: ast_threadpool_listener ast_threadpool_listener_callbacks ast_threadpool_options
        ast_threadpool_listener_alloc ast_threadpool_listener_get_user_data ast_threadpool_create
        ast_threadpool_set_size ast_threadpool_push ast_threadpool_shutdown ast_threadpool_queue_size
        ast_threadpool_serializer ast_threadpool_serializer_group ast_threadpool_serializer_get_current
        ast_serializer_shutdown_group ast_serializer_shutdown_group_alloc ast_serializer_shutdown_group_join
    taskpool.h: ast_taskpool_selector ast_taskpool_options ast_taskpool_create
        ast_taskpool_taskprocessors_count ast_taskpool_queue_size ast_taskpool_push ast_taskpool_push_wait
        ast_taskpool_shutdown ast_taskpool_serializer_get_current ast_taskpool_serializer
        ast_taskpool_serializer_group ast_taskpool_serializer_push_wait
";

/// `file.rs::test` in a text.
fn named(text: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(".rs::")
        .map(|(at, link)| {
            let file = text[..at].rsplit(|c| !is_name(c)).next().unwrap_or("");
            let test = text[at + link.len()..].split(|c| !is_name(c)).next().unwrap_or("");
            (file, test)
        })
        .collect()
}

fn has_test(file: &str, test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join("tests"), root.join("loom-tests/tests")]
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join(format!("{file}.rs"))).ok())
        .any(|text| text.contains(&format!("fn {test}(")))
}

#[test]
fn every_function_has_a_test_that_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stasis-parity.md");
    let text = fs::read_to_string(page).unwrap();
    let (mut rows, mut wrong) = (0, Vec::new());
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Stasis function")) {
        rows += 1;
        let row = line.replace("\\|", "/");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, function, ours, tests, difference, _] = cells[..] else {
            wrong.push(format!("not four cells: {line}"));
            continue;
        };
        let tests_named = named(tests);
        // What is left out on purpose says why in the last cell.
        if tests_named.is_empty() && !(ours.starts_with("none") || ours.starts_with('-'))
            || difference.is_empty() && ours.is_empty()
        {
            wrong.push(format!("{function}: no test"));
        }
        for (file, test) in tests_named.into_iter().chain(named(difference)) {
            if !has_test(file, test) {
                wrong.push(format!("{function}: no test {file}.rs::{test}"));
            }
        }
    }
    assert!(rows > 150, "{rows} rows only: is this the right page?");
    assert!(wrong.is_empty(), "{} wrong of {rows}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn everything_the_headers_declare_is_on_the_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stasis-parity.md");
    let text = fs::read_to_string(page).unwrap();
    // In the first cell of a row, as a word of its own.
    let rows: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next()).collect();
    let words: BTreeSet<&str> =
        rows.iter().flat_map(|cell| cell.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).collect();
    let declared: Vec<&str> = DECLARED.split_whitespace().filter(|name| !name.ends_with(".h:")).collect();
    assert!(declared.len() > 200);
    let missing: Vec<_> = declared.iter().filter(|name| !words.contains(**name)).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}

#[test]
fn names_are_found_in_a_text() {
    assert_eq!(named("see `a.rs::b_1`, and c_d.rs::e."), [("a", "b_1"), ("c_d", "e")]);
    assert!(has_test("parity", "names_are_found_in_a_text") && !has_test("parity", "no_such_test"));
}
