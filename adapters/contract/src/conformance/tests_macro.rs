//! The macro that makes a test of each case.

/// Makes a `#[test]` of each case of the suite, each with a time limit, so that a case can be run alone and a panic or a hang of
/// one does not hide the others.
///
/// `storage` is an expression that is awaited for an `Arc<dyn Storage>`, once in each test; every test uses tables of its own.
/// `seconds` is the time limit of one case; 60 by default. The crate that invokes the macro needs `tokio` (features `macros`,
/// `rt-multi-thread` and `time`) as a dependency of its tests.
///
/// ```no_run
/// mod tests {
///     # use std::sync::Arc;
///     # use resourceful_contract::Storage;
///     async fn connect() -> Arc<dyn Storage> {
///         // …
///         # panic!("no database")
///     }
///
///     resourceful_contract::conformance_tests! { storage: connect(), seconds: 20 }
/// }
/// ```
#[macro_export]
macro_rules! conformance_tests {
    (storage: $storage:expr $(,)?) => {
        $crate::conformance_tests! { storage: $storage, seconds: 60 }
    };
    (storage: $storage:expr, seconds: $seconds:expr $(,)?) => {
        $crate::__conformance_cases! { test_each { $storage } { $seconds } }
    };
}

/// Passes the names of all cases to a rule of this macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    (@test_each { $storage:expr } { $seconds:expr } $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let runtime = ::tokio::runtime::Builder::new_multi_thread().enable_all().build();
                runtime.expect("a runtime can be started").block_on(async {
                    let limit = ::std::time::Duration::from_secs($seconds);
                    let case = async { $crate::conformance::check(stringify!($name), $storage.await).await };
                    match ::tokio::time::timeout(limit, case).await {
                        Ok(Ok(())) => {}
                        Ok(Err(failure)) => panic!("{failure}"),
                        Err(_) => panic!("it was not done after {limit:?}"),
                    }
                });
            }
        )*
    };
    (@names $($name:ident)*) => {
        &[$(stringify!($name)),*]
    };
    (test_each $storage:tt $seconds:tt) => {
        $crate::__conformance_cases! { @list { @test_each $storage $seconds } }
    };
    (names) => {
        $crate::__conformance_cases! { @list { @names } }
    };
    (@list { $($rule:tt)* }) => {
        $crate::__conformance_cases! {
            $($rule)*
            // In the order of `cases()`.
            nulls_of_every_type_round_trip
            booleans_round_trip
            integers_of_64_bits_round_trip
            floats_round_trip_exactly
            decimals_round_trip_without_trailing_zeros
            text_of_every_script_round_trips
            text_with_every_escape_round_trips
            long_text_round_trips
            uuids_round_trip
            times_are_returned_in_utc_microseconds
            dates_round_trip
            objects_round_trip
            arrays_round_trip
            row_json_is_exact
            float32_round_trips_in_shortest_form
            float32_is_sorted_and_compared
            float32_arrays_round_trip_and_match
            decimals_of_every_scale_round_trip
            doubles_round_trip_in_shortest_form
            json_numbers_have_canonical_form
            equality_of_booleans
            equality_of_integers
            equality_of_floats
            equality_of_decimals
            equality_of_text
            equality_of_uuids
            equality_of_times
            equality_of_dates
            ne_matches_null
            integers_are_compared_by_value
            integers_beyond_2_to_the_53_are_exact
            floats_are_compared_by_value
            decimals_are_ordered_by_value
            text_is_ordered_by_bytes
            uuids_are_compared_by_value
            times_of_any_precision_are_compared
            dates_are_compared_by_value
            between_includes_both_bounds
            in_matches_any_listed_value
            empty_in_matches_no_row
            nin_matches_null
            empty_nin_matches_every_row
            in_works_on_every_type
            contains_is_literal_and_case_sensitive
            percent_is_literal
            underscore_is_literal
            backslash_is_literal
            quotes_are_literal
            starts_is_anchored
            ends_is_anchored
            empty_substring_matches_every_non_null_text
            text_tests_match_whole_characters
            is_null_works_on_every_type
            has_matches_array_element
            overlaps_matches_any_element
            duplicate_array_elements_return_row_once
            integer_arrays_match_has_and_overlaps
            search_covers_each_listed_field
            search_matches_punctuation_literally
            empty_search_matches_every_non_null_text
            search_finds_text_in_every_script
            search_ignores_case_in_every_script
            search_applies_only_simple_folding
            search_folds_every_cased_character
            search_finds_end_of_long_text
            search_accepts_long_terms
            empty_all_matches_every_row
            empty_any_matches_no_row
            not_selects_exact_complement
            negated_comparison_matches_null
            double_negation_equals_filter
            nested_connectives_are_evaluated
            tests_of_one_field_are_combined
            deeply_nested_filter_is_evaluated
            nulls_sort_last_ascending
            nulls_sort_first_descending
            several_keys_sort_in_mixed_directions
            every_scalar_type_is_sortable
            ties_are_broken_by_the_id
            fields_are_written_in_requested_order
            limit_bounds_page_and_sets_more
            first_and_last_are_sort_keys
            keys_and_versions_are_returned_beside_json
            offset_skips_rows
            page_at_offset_beyond_end_is_empty
            total_counts_all_matching_rows
            total_is_exact_on_empty_page
            estimate_of_new_table_is_exact
            similar_query_shapes_get_separate_plans
            forward_pages_return_every_row_once
            backward_pages_return_every_row_once
            pages_through_ties_return_every_row_once
            pages_through_nulls_return_every_row_once
            pages_in_mixed_directions_return_every_row_once
            pages_by_decimal_return_every_row_once
            pages_by_time_return_every_row_once
            pages_by_float_return_every_row_once
            page_before_cursor_keeps_query_order
            cursor_of_deleted_row_is_valid
            inserts_and_deletes_between_pages_skip_no_row
            pages_beyond_the_ends_are_empty
            engine_uuids_are_stored
            client_text_ids_are_stored
            client_integer_ids_are_stored
            storage_generates_ascending_ids
            generated_ids_skip_explicit_ids
            duplicate_id_is_unique_violation
            creating_existing_table_keeps_rows
            missing_table_is_reported
            insert_returns_row
            counter_starts_at_given_value
            update_returns_row_after_change
            update_changes_only_named_fields
            update_can_set_null
            delete_removes_row
            each_update_increments_the_counter
            digest_depends_on_content
            change_set_is_atomic
            changes_see_earlier_changes
            large_change_set_is_stored
            error_names_failed_change
            unique_violation_names_field
            composite_unique_violation_names_fields
            nulls_never_violate_uniqueness
            update_to_duplicate_is_unique_violation
            null_in_required_field_is_rejected
            dangling_reference_is_foreign_key_violation
            referenced_row_cannot_be_deleted
            parent_and_child_are_inserted_in_one_set
            progress_reports_total
            follow_up_receives_row_outcomes
            failed_follow_up_rolls_back_set
            dry_run_stores_nothing
            dry_run_returns_errors
            update_all_changes_matching_rows
            delete_all_removes_matching_rows
            outcomes_follow_order_of_changes
            generated_ids_ascend_within_set
            change_of_absent_row_is_not_found
            row_excluded_by_filter_is_not_found
            matching_filter_admits_change
            wrong_counter_is_version_mismatch
            matching_counter_admits_change
            digest_never_matches_row_with_counter
            wrong_digest_is_version_mismatch
            matching_digest_admits_change
            filter_and_version_are_both_checked
            guard_checks_row_before_change
            belongs_to_filter_selects_rows
            has_many_filter_selects_rows
            relation_filters_nest_and_negate
            belongs_to_is_included_or_null
            filtered_belongs_to_include_is_null
            has_many_is_included_by_ascending_id
            has_many_include_is_limited_and_filtered
            included_values_have_canonical_json
            includes_work_with_pages_and_totals
            similar_table_and_column_names_get_separate_indexes
            long_names_with_common_prefix_get_separate_indexes
            missing_unique_index_is_reported
            unique_index_on_fewer_fields_suffices
            indexes_accept_longest_allowed_values
            overlong_values_can_be_queried
            one_of_concurrent_counter_updates_succeeds
            one_of_concurrent_digest_updates_succeeds
            one_of_concurrent_inserts_with_same_id_succeeds
            concurrent_inserts_get_distinct_ids
            concurrent_sets_of_same_rows_never_deadlock
        }
    };
}

/// The names of all cases.
#[cfg(test)]
pub(super) const NAMES: &[&str] = crate::__conformance_cases! { names };
