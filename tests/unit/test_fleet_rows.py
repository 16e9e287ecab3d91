"""Which tests show what a fleet does when something of it fails.

Each row is a fault; it is shown by all of the tests beside it, of which those in tests/fleet have a real nats-server:
`grep -rn NAME tests` finds them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
_TEST = re.compile(r"^((?:@.*\n)*)(?:async )?def (test_\w+)", re.MULTILINE)
_ALL_LONG = re.compile(r"^pytestmark = .*pytest\.mark\.long", re.MULTILINE)
ROWS = {
    "an exit is killed, or its host dies": (
        "test_sessions_open_elsewhere_soon_when_one_dies",
        "test_each_exit_knows_how_the_other_one_stands",
        "test_three_missed_beats_make_an_exit_dead",
        "test_an_exit_that_dies_meanwhile_is_not_asked_again",
        "test_of_an_exit_that_is_away_the_reported_is_shown",
    ),
    "an exit is cut off": (
        "test_an_exit_that_is_cut_off_goes_on",
        "test_a_silent_way",
        "test_nothing_is_sent_while_cut_off",
        "test_an_exit_that_is_cut_off_goes_on_alone",
        "test_tokens_are_trusted_for_a_day",
        "test_what_was_made_while_cut_off_is_claimed_afterwards",
    ),
    "the hub's nats-server is killed": (
        "test_a_hubs_server_that_is_killed_comes_back",
        "test_a_killed_server",
        "test_it_ends_with_serve_and_is_started_again_when_it_is_killed",
        "test_a_hub_that_is_killed_goes_by_its_store_again",
    ),
    "the hub's disk is lost, or restored from an old image": (
        "test_a_real_hub_is_wiped_and_rolled_back",
        "test_a_wiped_hub_has_everything_again",
        "test_a_hub_that_was_rolled_back",
        "test_a_hub_that_was_rolled_back_is_followed_back",
        "test_another_hub_with_the_same_accounts_changes_nothing",
        "test_what_the_ledger_has_lost_is_claimed_again",
        "test_claims_on_a_real_hub",
    ),
    "the hub is lost for good, and its standby promoted": (
        "test_the_standby_takes_over_and_the_old_hub_stands_by",
        "test_a_promoted_store_is_followed_and_the_old_hub_yields",
        "test_a_host_that_is_no_standby_is_not_promoted",
        "test_a_promotion_that_was_killed_is_finished_by_the_server",
        "test_a_replica_does_not_write_into_a_store_that_leads",
        "test_members_dial_the_hub_and_then_the_standby",
        "test_a_host_that_is_invited_as_a_hub_stands_by",
        "test_a_hub_that_has_just_yielded_begins_the_generation_after_that_one",
        "test_whole_hosts_agree_whichever_was_promoted",
    ),
    "two hubs lead, each those that it reaches": (
        "test_a_hub_that_was_cut_off_yields_when_the_cut_heals",
        "test_a_hub_that_was_replaced_yields_before_it_opens_its_port",
        "test_a_hub_stays_one_while_no_newer_one_is_reached",
        "test_who_has_seen_a_newer_generation_does_not_go_back",
        "test_a_hub_that_was_rolled_back_offers_nothing",
        "test_a_generation_that_began_with_nothing_of_the_one_before_has_all_of_that_listed",
        "test_what_no_log_tells_of_is_listed_too_by_a_hub_whose_successor_had_followed_nothing",
        "test_of_several_hubs_one_that_was_replaced_twice_lists_what_was_not_acknowledged",
    ),
    "one of three hubs is lost": (
        "test_its_host_is_lost",
        "test_its_process_stands_still",
        "test_the_nats_server_of_one_dies",
        "test_another_hub_leads_when_the_first_is_lost",
        "test_three_hubs_keep_what_one_keeps",
        "test_a_hub_takes_the_lead_after_a_while",
        "test_only_who_has_what_was_kept_takes_it",
        "test_no_acknowledged_change_is_lost",
        "test_whole_hosts_agree_whichever_of_three_hubs_was_lost",
    ),
    "one of three hubs is lost for good": (
        "test_one_of_three_is_lost_for_good",
        "test_one_of_three_hubs_is_forgotten",
        "test_a_hub_that_is_lost_is_replaced_by_another_host",
        "test_where_one_of_three_hubs_leaves_the_others_are_other_hubs",
    ),
    "two of three hubs are lost": (
        "test_two_of_three_are_lost",
        "test_two_of_three_hubs_are_lost",
        "test_another_hub_leads_when_the_first_is_lost",
        "test_three_hubs_keep_what_one_keeps",
        "test_a_leader_that_is_cut_off_leads_for_a_while",
        "test_a_hub_that_is_promoted_without_the_others_goes_on_alone",
        "test_a_hub_that_was_taken_for_lost_with_another_is_a_spoke_when_it_yields",
    ),
    "a hub of several is cut off": (
        "test_it_is_cut_off",
        "test_a_leader_that_is_cut_off_leads_for_a_while",
        "test_it_counts_anew_when_the_record_could_not_be_read",
        "test_a_write_whose_answer_is_lost_acknowledges_nothing",
        "test_a_hub_begins_no_generation_that_is_not_newer_than_its_own",
        "test_of_several_hubs_one_that_was_replaced_twice_lists_what_was_not_acknowledged",
    ),
    "hubs are started anew, one at a time": (
        "test_it_is_started_anew",
        "test_three_servers_are_started_anew_one_at_a_time",
        "test_a_hub_that_was_started_anew_takes_its_own_lead_at_once",
        "test_a_server_that_a_fault_ends_is_made_anew",
        "test_the_part_in_who_leads_is_made_anew_when_a_fault_ends_it",
    ),
    "other hosts become the hubs": (
        "test_three_hubs_and_one_again",
        "test_a_hub_is_replaced_by_another_host",
        "test_a_set_of_hubs_replaces_the_one_before",
        "test_a_hub_leaves_a_cluster_once_the_others_have_heard_of_it",
        "test_another_hub_that_leads_by_now_keeps_the_hubs_as_they_are",
        "test_a_server_that_goes_by_others_has_former_streams_removed",
    ),
    "the authority of three hubs is replaced": (
        "test_their_authority_is_replaced",
        "test_members_go_on_and_hosts_join_while_the_authority_is_replaced",
    ),
    "the hub's fold alone is lost": ("test_a_fold_that_is_lost_is_made_again",),
    "an answer to an opening is lost": (
        "test_nothing_is_left_of_an_opening_of_which_a_step_is_lost",
        "test_one_lost_request_or_answer_is_not_noticed",
        "test_of_an_opening_that_is_not_answered_nothing_is_left",
        "test_an_exit_killed_in_an_opening_leaves_nothing",
        "test_an_abort_that_is_lost_is_asked_again",
        "test_an_aborted_replacement_leaves_what_was_there",
        "test_what_clients_were_told_is_what_there_is",
    ),
    "an old backup is restored on an exit": (
        "test_a_store_that_went_back",
        "test_sessions_that_only_the_hub_knows",
        "test_a_session_that_had_ended_lives_again",
        "test_nothing_is_lost_or_doubled",
        "test_a_store_of_before_the_host_joined_is_a_spokes_again",
    ),
    "the clock of one host is off": (
        "test_a_clock_that_is_off",
        "test_a_clock_that_differs_is_warned_of_once",
        "test_only_what_works_takes_sessions",
        "test_each_fault_is_named_with_what_mends_it",
        "test_clocks_need_not_agree",
    ),
    "a virtual machine is copied": (
        "test_a_machine_that_is_copied_refuses_work_for_the_fleet",
        "test_a_machine_that_is_there_twice",
        "test_a_machine_copied_as_it_ran_knows_of_its_double",
        "test_two_machines_with_one_id_refuse_work_for_the_fleet",
        "test_readyz_tells_what_is_wrong_with_the_exits_fleet",
    ),
    "a spoke is stolen": (
        "test_each_right",
        "test_every_right_is_tried",
        "test_no_answer_can_be_sent_into_what_is_kept",
        "test_a_host_that_is_forgotten_is_told_so_and_comes_back_when_it_is_let_in",
        "test_a_member_is_let_in_when_it_was_applied_and_cut_off_when_it_left",
        "test_a_token_that_the_exit_does_not_know_opens_nothing_there",
        "test_a_member_that_left_is_not_served",
        "test_lists_show_no_exit_but_the_hub_a_token",
        "test_a_member_that_floods_harms_itself_alone",
        "test_an_exit_that_reports_without_end_is_refused_before_others",
    ),
    "an exit is lost for good": (
        "test_what_a_lost_exit_held_is_free_at_once",
        "test_an_exit_parts_from_its_fleet_and_comes_back",
        "test_what_is_no_longer_needed_is_removed",
    ),
    "the stream of an exit is full": (
        "test_an_exit_whose_stream_is_full_goes_on",
        "test_a_long_stream_is_no_reason_for_others_to_wait",
    ),
    "versions are apart": (
        "test_versions_that_have_a_protocol_in_common_work_together",
        "test_newer_words_are_passed_over",
        "test_a_code_of_a_later_version_is_a_failure",
        "test_what_no_client_is_told_arrives_as_a_failed_apply",
    ),
    "any of these, in any order": ("test_the_hub_knows_to_the_byte_what_exits_have_counted",),
}


@cache
def _tests() -> dict[str, bool]:
    """Each test, and whether the usual run has it."""
    found = dict[str, bool]()
    for ring in ("unit", "api", "fleet", "faults"):
        for file in (TESTS / ring).glob("test_*.py"):
            text = file.read_text(encoding="utf-8")
            all_long = _ALL_LONG.search(text) is not None
            for marks, name in _TEST.findall(text):
                found[name] = found.get(name, False) or not (all_long or "\n@pytest.mark.long\n" in f"\n{marks}")
    return found


@pytest.mark.parametrize("row", ROWS)
def test_each_fault_has_tests_that_are_there(row: str) -> None:
    """The table is true: a test that is renamed is renamed in it; and one at least is in the usual run."""
    assert [named for named in ROWS[row] if named not in _tests()] == []
    assert any(_tests()[named] for named in ROWS[row])
