"""Tests that cannot pass on Windows, by what keeps them from it. conftest.py skips them there, and nowhere else."""

from __future__ import annotations

NOT_ON_WINDOWS = {
    "it asks for POSIX: forks, signals, shells, pipes with names, modes, links, devices, fsync of a folder": """
        tests/cache/test_lock.py::test_a_fork_that_ends_early_leaves_the_lock_alone
        tests/commands/test_cli.py::test_a_signal_in_a_process_of_its_own
        tests/commands/test_outputs.py::test_modes_follow_the_umask
        tests/commands/test_outputs.py::test_symlinks_are_followed
        tests/commands/test_outputs.py::test_what_is_no_stream
        tests/common/test_durable.py::test_a_link_stays_one
        tests/common/test_durable.py::test_every_file_of_a_folder_is_flushed_before_it_has_its_name
        tests/common/test_durable.py::test_tensors_keep_the_mode_of_the_file
        tests/common/test_whole_file.py::test_a_fifo_is_written_through
        tests/common/test_whole_file.py::test_a_fifo_whose_reader_goes_is_an_error_with_a_word
        tests/common/test_whole_file.py::test_a_symlink_is_followed
        tests/common/test_whole_file.py::test_devices_stay_devices
        tests/common/test_whole_file.py::test_modes_follow_the_umask_or_the_file_that_is_replaced
        tests/common/test_whole_file.py::test_standard_output_is_written_through
        tests/common/test_whole_file.py::test_the_disk_has_it_before_it_has_its_name
        tests/common/test_whole_file.py::test_two_writers_and_a_kill
        tests/common/test_whole_file.py::test_what_is_no_place_for_an_output
        tests/heads/test_native.py::test_ctrl_c_returns_what_is_finished
        tests/heads/test_probes.py::test_ctrl_c_in_a_group
        tests/prediction/test_classifier.py::test_a_fork_may_use_its_parents
        tests/prediction/test_predict_file.py::test_ctrl_c_says_what_is_saved
        tests/prediction/test_predict_file.py::test_nobody_reads_the_stream_to_its_end
        tests/prediction/test_predict_file.py::test_streams
        tests/prediction/test_predict_file.py::test_symlinks_and_devices_survive
        tests/runs/test_run_folder.py::test_a_run_is_replaced_and_other_files_in_it_stay
        tests/tables/test_write.py::test_a_failure_leaves_nothing_that_looks_whole
        tests/tables/test_write.py::test_nothing_seeks
        tests/tables/test_write.py::test_streams_are_lines_of_json_if_their_name_does_not_say_it
        tests/vectors/test_import_kills.py::test_killed_at_random_moments
    """,
    "it puts a call, file or program of its own in the place of one that Windows does not have": """
        tests/doctor/test_doctor.py::test_a_driver_that_does_not_answer
        tests/doctor/test_doctor.py::test_a_gpu
        tests/encoder/test_folder.py::test_auto_dtype_of_a_cpu
        tests/cache/test_lock.py::test_a_lock_file_that_vanishes_is_not_trusted
        tests/cache/test_lock.py::test_file_systems_that_only_pretend
        tests/cache/test_lock.py::test_file_systems_without_locks
        tests/common/test_durable.py::test_macos_empties_the_disks_own_cache_too
        tests/common/test_journal.py::test_a_full_disk_keeps_what_is_saved
        tests/common/test_whole_file.py::test_a_file_system_without_locks
        tests/extraction/test_extract_faults.py::test_a_disk_that_fails_midway
        tests/extraction/test_extract_faults.py::test_disk_full_is_said_before_any_encoding
        tests/extraction/test_extract_faults.py::test_file_systems_that_cannot_reserve
        tests/extraction/test_extract_faults.py::test_locks_refused
        tests/extraction/test_extract_tokens.py::test_space_that_is_gone_when_it_is_reserved
        tests/labelling/test_labels_journal.py::test_a_full_disk_is_said_and_leaves_nothing_half
    """,
    "it names a file as no file there can be named": """
        tests/report/test_report.py::test_an_audit_of_hostile_names
        tests/report/test_report.py::test_names_and_texts_are_shown_and_never_obeyed
        tests/report/test_run_card.py::test_hugging_face_reads_it
        tests/report/test_run_card.py::test_names_from_the_data_stay_code
    """,
    "it replaces, removes or cuts short a file that it has open itself": """
        tests/cache/test_file.py::test_lists_of_labels
        tests/cache/test_token_states.py::test_a_spoilt_index_gives_no_other_states
        tests/cache/test_token_states.py::test_growth_keeps_what_is_there
        tests/cache/test_token_states.py::test_what_is_damaged_is_noticed
        tests/extraction/test_columns.py::test_na_adds_to_the_usual_values_with_default_and_replaces_them_without
        tests/extraction/test_extract.py::test_lists_of_labels
        tests/extraction/test_extract_faults.py::test_removed_or_replaced_while_running
        tests/extraction/test_extract_tokens.py::test_damage_is_found_and_made_good
        tests/extraction/test_extract_tokens.py::test_the_index_goes_away_while_it_is_written
        tests/extraction/test_extract_tokens.py::test_what_the_commands_say
        tests/extraction/test_store_int8.py::test_the_vectors_are_those_of_float32_rounded
    """,
    "what Ctrl-C or a failure in two threads takes away with its handle keeps its file, which the next run removes": """
        tests/common/test_common_lock.py::test_ctrl_c_at_any_moment_leaves_no_lock
        tests/extraction/test_extract_tokens.py::test_nothing_is_left_of_a_run_that_saved_nothing
    """,
}


def reason_of(name: str) -> str | None:
    """Why a test, ``tests/room/test_file.py::test_name``, cannot pass on Windows; None where it can."""
    return next((reason for reason, names in NOT_ON_WINDOWS.items() if name in names.split()), None)
