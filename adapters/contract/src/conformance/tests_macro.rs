//! The macro that makes a test of each case.

/// Makes a `#[test]` of each case of the suite, each with a time limit, so that a case can be run alone and a panic or a hang of
/// one does not hide the others.
///
/// `storage` is an expression that is awaited for an `Arc<dyn Storage>`, once in each test; every test uses tables of its own.
/// `seconds` is the time limit of one case; 60 by default. The crate that invokes the macro needs `tokio` (features `macros`,
/// `rt-multi-thread` and `time`) as a dependency of its tests.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use resourceful_contract::Storage;
/// # async fn connect() -> Arc<dyn Storage> { unimplemented!() }
/// # mod tests { use super::connect;
/// resourceful_contract::conformance_tests! { storage: connect(), seconds: 20 }
/// # }
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
                    let case = async {
                        $crate::conformance::check(stringify!($name), $storage.await).await;
                    };
                    assert!(
                        ::tokio::time::timeout(limit, case).await.is_ok(),
                        "it was not done after {limit:?}",
                    );
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
            nulls_of_every_type_come_back
            booleans_come_back
            integers_of_64_bits_come_back
            floats_come_back_exactly
            decimals_come_back_exactly_without_trailing_zeros
            text_of_every_script_comes_back
            text_with_every_escape_comes_back
            long_text_comes_back
            uuids_come_back
            times_come_back_in_utc_to_the_microsecond
            dates_come_back
            objects_come_back
            arrays_come_back
            a_row_is_spelled_byte_for_byte
            numbers_of_single_precision_are_spelled_shortly_and_found_again
            numbers_of_single_precision_have_an_order
            arrays_of_single_precision_come_back_and_are_tested
            decimals_of_every_scale_are_found_again
            doubles_are_found_again_by_their_spelling
            numbers_in_documents_have_one_spelling
            equality_of_booleans
            equality_of_integers
            equality_of_floats
            equality_of_decimals
            equality_of_text
            equality_of_uuids
            equality_of_times
            equality_of_dates
            ne_takes_nulls
            integers_have_an_order
            neighbours_beyond_2_to_the_53_are_told_apart
            floats_have_an_order
            decimals_are_ordered_by_value
            text_is_ordered_by_bytes
            uuids_have_an_order
            times_are_ordered_whatever_their_precision
            dates_have_an_order
            between_takes_both_ends
            in_takes_any_of_a_list
            in_with_nothing_matches_nothing
            nin_takes_nulls
            nin_with_nothing_matches_everything
            in_works_on_every_type
            contains_is_literal_and_case_sensitive
            percent_is_literal
            underscore_is_literal
            backslash_is_literal
            quotes_are_literal
            starts_is_anchored
            ends_is_anchored
            empty_parts_match_every_text_and_no_null
            text_tests_see_whole_characters
            null_is_found_in_every_type
            arrays_are_tested_for_an_element
            arrays_are_tested_for_any_of_several_elements
            an_element_that_is_there_twice_selects_its_row_once
            arrays_of_integers_are_tested
            search_looks_into_each_of_its_fields
            search_takes_every_sign_literally
            search_of_nothing_finds_every_text_and_no_null
            search_finds_every_script_by_its_own_spelling
            search_ignores_case_in_every_script
            search_tells_apart_what_simple_folding_tells_apart
            search_finds_every_character_that_has_a_case
            search_in_long_text_finds_its_end
            search_takes_long_words
            all_of_nothing_is_everything
            any_of_nothing_is_nothing
            not_is_the_exact_complement
            not_of_a_comparison_takes_nulls
            double_negation_is_the_filter_itself
            connectives_nest
            tests_of_one_field_are_combined
            deep_trees_are_answered
            nulls_come_after_every_value_ascending
            nulls_come_before_every_value_descending
            several_keys_sort_in_mixed_directions
            every_scalar_type_sorts
            ties_are_broken_by_the_id
            fields_are_written_in_the_order_asked_for
            a_limit_cuts_the_page_and_says_that_there_is_more
            the_edges_of_a_page_are_its_sort_keys
            keys_and_versions_come_beside_the_rows
            an_offset_skips_rows
            an_offset_beyond_the_end_is_empty
            a_total_counts_what_matches_whatever_the_page
            a_total_is_right_where_the_page_is_empty
            an_estimate_is_a_total
            plans_are_told_apart_by_their_shape
            walking_forwards_meets_every_row_once
            walking_backwards_meets_every_row_once
            walking_through_ties_meets_every_row_once
            walking_through_nulls_meets_every_row_once
            walking_in_mixed_directions_meets_every_row_once
            walking_by_decimals_meets_every_row_once
            walking_by_times_meets_every_row_once
            walking_by_floats_meets_every_row_once
            a_page_before_is_in_the_querys_order
            a_place_need_not_exist_any_more
            rows_that_come_and_go_repeat_and_skip_no_other
            nothing_lies_beyond_the_ends
            the_engines_uuids_are_kept
            the_clients_texts_are_kept
            the_clients_integers_are_kept
            the_storage_mints_ascending_integers
            minted_ids_never_clash_with_given_ones
            an_id_that_is_taken_is_a_unique_violation
            tables_are_made_once_and_keep_their_rows
            a_missing_table_is_named
            an_insert_answers_the_row
            a_counter_begins_at_what_it_is_given
            an_update_answers_the_row_as_it_is_then
            an_update_sets_what_it_names_and_nothing_else
            an_update_can_clear_a_field
            a_delete_leaves_nothing
            each_update_increments_the_counter
            a_digest_follows_the_content
            a_set_of_changes_is_all_or_none
            changes_see_those_before_them
            a_large_set_is_stored_whole
            the_failing_change_is_named
            a_unique_clash_names_the_field
            a_unique_clash_of_several_fields_names_them
            nulls_never_clash
            an_update_into_a_clash_is_refused
            a_null_where_none_may_be_is_rejected
            a_reference_to_nothing_is_refused_and_named
            what_is_referred_to_cannot_be_deleted
            parent_and_child_come_in_one_set
            progress_reaches_the_end
            what_follows_is_told_of_every_row
            what_follows_fails_with_the_set
            a_dry_run_leaves_nothing
            a_dry_run_fails_as_it_would
            every_row_that_matches_is_updated
            every_row_that_matches_is_deleted
            many_rows_answer_in_order
            many_minted_ids_ascend
            an_absent_row_is_not_found
            a_row_that_the_filter_hides_is_not_found
            a_filter_that_holds_lets_the_change_happen
            another_counter_is_a_version_mismatch
            the_right_counter_lets_the_change_happen
            a_digest_is_never_the_version_of_a_counted_row
            another_digest_is_a_version_mismatch
            the_right_digest_lets_the_change_happen
            filter_and_version_hold_together
            a_guard_may_ask_through_nothing_but_the_row_before
            rows_are_filtered_through_the_one_they_belong_to
            rows_are_filtered_through_the_many_that_refer_to_them
            filters_through_relations_nest_and_negate
            the_one_is_included_or_null
            an_included_one_that_the_filter_hides_is_null
            the_many_are_included_by_ascending_id
            the_many_are_limited_and_filtered
            included_values_are_spelled_as_everywhere
            includes_come_with_pages_and_totals
            tables_and_columns_whose_names_run_together_have_indexes_of_their_own
            long_names_that_begin_alike_have_indexes_of_their_own
            a_missing_unique_index_is_named
            what_is_unique_in_fewer_fields_is_unique_in_all
            an_index_takes_the_longest_values_that_the_schema_admits
            a_value_longer_than_an_index_takes_can_be_asked_for
            of_concurrent_writers_on_one_counter_one_wins
            of_concurrent_writers_on_one_digest_one_wins
            of_concurrent_inserts_of_one_id_one_wins
            concurrent_inserts_are_minted_ids_of_their_own
            concurrent_changes_of_the_same_rows_in_any_order_all_happen
        }
    };
}

/// The names of all cases.
#[cfg(test)]
pub(super) const NAMES: &[&str] = crate::__conformance_cases! { names };
