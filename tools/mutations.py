"""Breaks each guard in turn and sees whether a test notices.

A guard is code that nothing needs in order to work: redaction, a check of the token, a share of a
budget, a sync before an acknowledgement, a bound. Such code can be lost without anybody noticing,
so for each there is a line below: what to change, and the tests that must fail then.

``make mutations`` works on a copy of the tree in a temporary folder. ``ARGS='redaction'`` runs only
the mutations whose file or fragment has that text. The exit code is 1 when a mutation survived, or
when a fragment does not stand in its file exactly once: then adjust the table.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
_LEFT_OUT = (".git", ".venv", ".parts", ".demo", "build", "*cache*", "node_modules", "results")
_PATIENCE = 300.0
_OF_OTHERS = (
    *("pytest", "xdist", "pytest_cov", "pytest_timeout", "hypothesis", "click", "fastapi", "httpx"),
    *(
        "kafka",
        "kafka.admin",
        "numpy",
        "orjson",
        "prometheus_client",
        "pyarrow.parquet",
        "pydantic",
    ),
    *("rich.table", "scipy.optimize", "scipy.special", "scipy.stats", "starlette", "uvicorn"),
    *("uvloop", "yaml", "zstandard"),
)
_W = "tests/wiring/"


@dataclass(frozen=True)
class Mutation:
    """``fragment`` stands in ``file`` exactly once and is replaced; one of ``tests`` must fail."""

    file: str
    fragment: str
    replacement: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.file}: {' '.join(self.fragment.split())[:70]}"

    def mutated(self, text: str) -> str:
        """The text with the mutation. Raises ValueError when the fragment is not there once."""
        count = text.count(self.fragment)
        if count != 1:
            raise ValueError(f"{self.name}: stands there {count} times, not once")
        return text.replace(self.fragment, self.replacement)


_STORY = (
    f"{_W}test_redaction.py::test_no_route_shows_a_hidden_value",
    f"{_W}test_redaction.py::test_what_is_not_hidden_is_shown",
)
_SHAPES = tuple(
    f"tests/pipeline/test_redaction.py::{name}"
    for name in (
        "test_a_hidden_value_in_a_target_is_not_shown",
        "test_a_hidden_value_in_a_header_is_not_shown",
        "test_credentials_are_hidden_without_any_rule",
        "test_names_that_look_alike_are_the_same",
        "test_a_secret_is_shown_at_no_place_of_a_payload",
    )
)
_STATE_FILES = (f"{_W}test_redaction.py::test_no_file_of_the_state_holds_a_hidden_text",)
_PARTITION = (
    f"{_W}test_redaction.py::test_evidence_of_a_partition_tells_no_hidden_value_of_a_disagreement",
)
_COMPARISONS = (f"{_W}test_redaction.py::test_events_of_single_comparisons_tell_no_hidden_value",)
_EXPORT = (
    f"{_W}test_redaction.py::test_an_export_with_the_configuration_leaves_hidden_columns_out",
)
_PENDING = (f"{_W}test_redaction.py::test_what_waits_for_a_label_holds_no_hidden_feature",)
_EVALUATOR = (f"{_W}test_redaction.py::test_an_evaluator_hides_what_a_sidecar_hides",)
_RELOAD = (f"{_W}test_redaction.py::test_rules_that_are_added_hold_from_the_reload_on",)
_ROUTES = (f"{_W}test_tokens.py::test_every_route_is_open_on_purpose_or_needs_the_token",)
_TABLE = (
    f"{_W}test_tokens.py::test_every_route_has_a_class_and_every_class_is_the_one_that_was_meant",
)
_GUARD = tuple(
    f"tests/api/test_guard.py::{name}"
    for name in (
        "test_foreign_names_are_refused_whatever_is_asked_and_addresses_are_not",
        "test_a_client_that_sends_too_much_sees_why",
        "test_bodies_are_bounded_over_all_requests_in_number_and_in_bytes",
    )
)
_FORWARDED = (f"{_W}test_tokens.py::test_who_forwards_lets_the_judge_check_the_token",)
_ALPHA = (
    f"{_W}test_budgets.py::test_hypotheses_share_the_alpha_of_their_experiment",
    f"{_W}test_budgets.py::test_a_budget_of_alpha_that_is_overdrawn_is_refused",
)
_ROWS = (f"{_W}test_budgets.py::test_what_watches_the_rows_of_a_model_shares_its_false_alarms",)
_PERFORMANCE = (
    f"{_W}test_budgets.py::test_what_watches_the_performance_of_a_model_shares_its_false_alarms",
)
_DISK = f"{_W}test_durability.py"
_BOUNDS = f"{_W}test_bounds.py"
_ADMISSION = "tests/proxy/test_admission.py"
_REFUSALS = "tests/proxy/test_refusals.py"
_EXPECT = "tests/proxy/test_expect.py"
_MEMORY = "tests/proxy/test_memory.py"
_SECRETS = f"{_W}test_secrets.py"
_HTTP = "tests/common/test_http.py"
_CONNECTIONS = "tests/api/test_connections.py"
_HUNG = "tests/failures/test_hung.py"
_WATCHDOG = "tests/supervisor/test_watchdog.py"
_COMMANDS = "tests/kafka/test_commands.py"
_PLAIN = '__import__("understudy.monitor.records.redaction", fromlist=["Redaction"]).Redaction'
_BY_NAME = f"{_PLAIN}(config.records.redact)"
"""Rules that know nothing of the paths that a configuration maps to names."""
_BY_NAME_OF_SETTINGS = f"{_PLAIN}({{}}.redact)"

REDACTION = (
    Mutation("monitor/evidence/mirrored.py", "                        self._explained(difference),",
             "                        difference.explain(),",
             _PARTITION),
    Mutation("monitor/evidence/mirrored.py", "agree else self._explained(difference)\n",
             "agree else difference.explain()\n", _COMPARISONS),
    Mutation("monitor/evidence/mirrored.py", "self._redact(columns_of(inputs))",
             "dict(columns_of(inputs))", _PARTITION),
    Mutation("monitor/evidence/mirrored.py", "self._redact(columns_of(champion.answer))",
             "dict(columns_of(champion.answer))", _PARTITION),
    Mutation("monitor/evidence/mirrored.py", "self._redact(columns_of(other.answer))",
             "dict(columns_of(other.answer))", _PARTITION),
    Mutation("monitor/evidence/stage_one.py", "self._redaction.columns(columns)", "dict(columns)",
             (*_PARTITION, *_STORY)),
    Mutation("monitor/evidence/stage_one.py", "redaction_of(config)", _BY_NAME, _PARTITION),
    Mutation("monitor/evidence/pending.py", "redaction_of(config)", _BY_NAME, _PENDING),
    Mutation("monitor/health/watches.py", "redaction_of(config)", _BY_NAME, _STORY),
    Mutation("monitor/archive/export.py", "redaction_of(config)", _BY_NAME, _EXPORT),
    Mutation("monitor/pipeline/plane.py", "redaction_of_settings(self.settings)",
             _BY_NAME_OF_SETTINGS.format("self.settings"), _STORY),
    Mutation("monitor/pipeline/plane.py", "redaction_of_settings(settings)",
             _BY_NAME_OF_SETTINGS.format("settings"), _RELOAD),
    Mutation("monitor/service/evaluator_api.py", "redaction_of_settings(settings)",
             _BY_NAME_OF_SETTINGS.format("settings"), _EVALUATOR),
    Mutation("monitor/evidence/redaction.py", "Redaction(rules, paths, headers, query)", "Redaction(rules)",
             _PARTITION),
    Mutation("monitor/pipeline/pipeline.py", "experiments.config is not self.stage_one.config",
             "self.stage_one.config is None", _RELOAD),
    Mutation("monitor/evidence/pending.py", " if not self._redaction.hides(name)", "",
             _PENDING),
    Mutation("monitor/health/watches.py", "self._shown(monitoring.segments)",
             "tuple(monitoring.segments)", _STORY),
    Mutation("monitor/health/watches.py", "version, now, self._redaction.hides)", "version, now)",
             _STORY),
    Mutation("monitor/health/watches.py", "if settings.slices and baseline is not None:",
             "if False:",
             (f"{_W}test_redaction.py::test_slices_that_were_found_under_other_rules_are_forgotten",)),
    Mutation("monitor/health/drift/signals.py", "if not hides(encoder.names[column]):", "if True:",
             _STORY),
    Mutation("monitor/api/records.py", "redaction.target(_text(record.target))",
             "_text(record.target)", _STORY),
    Mutation("monitor/api/records.py", "redaction.header(key, _text(value).strip())",
             "_text(value).strip()", _STORY),
    Mutation("monitor/api/records.py", "REDACTED if is_hidden else rules.value(name, value)",
             "value", _STORY),
    Mutation("monitor/api/records.py", "return table, shown.data if shown is not None",
             "return table, data[0] if data is not None", _STORY),
    Mutation("monitor/api/status.py", "if not redaction.hides(name):", "if True:", _STORY),
    Mutation("monitor/api/status.py", "seen(plane.redaction, name, stats.summary())",
             "stats.summary()", _STORY),
    Mutation("monitor/api/app.py", 'status.seen(plane.redaction, one["name"], one)', "one",
             _STORY),
    Mutation("monitor/telemetry/predictions.py", "if not redaction.hides(name):", "if True:",
             _STORY),
    Mutation("monitor/api/baseline.py", "_seen(matching[0], plane.redaction)", "matching[0].to_dict()",
             _STORY),
    Mutation("monitor/api/experiments.py", "if not any(redaction.touches(entry[part])",
             "if not any(False", _RELOAD),
    Mutation("monitor/records/redaction.py", "        data = _json(text)\n        if data is not None:",
             "        data = None\n        if data is not None:", _SHAPES),
    Mutation("monitor/records/redaction.py", "self.hides(_INDEX.sub", "self.hides(_BETWEEN.sub",
             _SHAPES),
    Mutation("monitor/records/redaction.py",
             'if self._is_credential(name.encode("utf-8", "replace")) or', "if", _SHAPES),
    Mutation("monitor/records/redaction.py", 'name = unicodedata.normalize("NFKC", name)', "pass",
             _SHAPES),
    Mutation("monitor/records/redaction.py", "hide_next = hidden and not equals", "pass", _SHAPES),
    Mutation("monitor/evidence/prediction_stats.py", "0 if self._hides(name) else", "", _STATE_FILES),
    Mutation("monitor/evidence/pending.py", "name in names or not redaction.hides(name)", "True",
             _STATE_FILES),
    Mutation("monitor/pipeline/plane.py", "self.redaction = redaction_of_settings(settings)",
             "pass", _RELOAD),
    Mutation("monitor/archive/export.py", "redaction_of(config).hides", "lambda name: False",
             _EXPORT),
    Mutation("monitor/evidence/blocks/arrow.py", "if not self._hides(name):", "if True:", _EXPORT),
    Mutation("monitor/service/evaluator_api.py", "EvaluatorView(consumer, self._settings, self._redaction)",
             "EvaluatorView(consumer, self._settings, Redaction(()))",
             _EVALUATOR),
    Mutation("monitor/service/evaluator_api.py", "prediction_families(health.pipeline, self._redaction)",
             "prediction_families(health.pipeline, Redaction(()))", _EVALUATOR),
)  # fmt: skip

TOKENS = (
    Mutation("monitor/api/access.py", 'Access.READ,\n        "GET /v1/status"',
             'Access.PUBLIC,\n        "GET /v1/status"', _ROUTES),
    Mutation("monitor/api/access.py", 'Access.CHANGE,\n        "POST /v1/session"',
             'Access.READ,\n        "POST /v1/session"', _TABLE),
    Mutation("monitor/api/access.py", '        "GET /v1/drift",\n', "", _TABLE),
    Mutation("monitor/api/guard.py", "            raise Refused(*refused)", "            pass", _ROUTES),
    Mutation("monitor/api/guard.py", "if route is None:", "if False:",
             (f"{_W}test_tokens.py::test_a_route_without_a_class_does_not_answer",)),
    Mutation("monitor/api/guard.py", "if int(length) > route.body:", "if False:", _GUARD),
    Mutation("monitor/api/guard.py", "if self.size > self.route.body:", "if False:", _GUARD),
    Mutation("monitor/api/guard.py", "            await self._body.drop()\n", "", _GUARD),
    Mutation("monitor/api/guard.py", "        self._bodies.size += size\n", "", _GUARD),
    Mutation("monitor/api/security.py", "if is_loopback(settings.control_host):\n            return",
             "if True:\n            return", _ROUTES),
    Mutation("monitor/api/security.py", "    if refused is not None or access is Access.PUBLIC:",
             "    if access is Access.PUBLIC:", _GUARD),
    Mutation("monitor/api/security.py", "and int(until) > now", "",
             (f"{_W}test_tokens.py::test_a_session_ends",)),
    Mutation("monitor/api/security.py",
             "hmac.compare_digest(signature.encode(), _signature(token, int(until)).encode())",
             "_signature(token, int(until)).startswith(signature)",
             (f"{_W}test_tokens.py::test_a_page_that_has_signed_in_reads_and_changes_nothing",)),
    Mutation("monitor/api/security.py",
             "hmac.compare_digest(headers[CSRF_HEADER].encode(), csrf.encode())",
             "csrf.startswith(headers[CSRF_HEADER])",
             (f"{_W}test_tokens.py::"
              "test_a_page_that_has_signed_in_changes_with_its_header_alone",)),
    Mutation("monitor/api/pages.py", "Inside(request.scope) if refused is None else None",
             "Inside(request.scope)",
             (f"{_W}test_tokens.py::"
              "test_the_console_shows_nothing_to_those_who_may_not_read",)),
    Mutation("monitor/api/security.py",
             "hmac.compare_digest(presented.strip().encode(), token.encode())",
             "token.encode().startswith(presented.strip().encode())",
             (f"{_SECRETS}::test_the_tokens_are_compared_in_constant_time_and_as_a_whole",)),
    Mutation("monitor/service/forwarding.py", "connection.putheader(name, value)", "pass", _FORWARDED),
    Mutation("monitor/service/evaluator_api.py", " or was_forwarded(scope)", "", _FORWARDED),
    Mutation("monitor/config/checks.py", "*_token(config, environment), ", "",
             (f"{_SECRETS}::test_a_missing_password_of_kafka_and_a_missing_token_end_the_start",)),
)  # fmt: skip

BUDGETS = (
    Mutation("shadow/experiment/rules.py", "(alpha - spent) / open_", "alpha / open_", _ALPHA),
    Mutation("shadow/experiment/rules.py", "left = (alpha - spent)", "left = open_ * (alpha - spent)",
             _ALPHA),
    Mutation("shadow/experiment/rules.py", "if spent > alpha * (1.0 + 1e-9)", "if False", _ALPHA),
    Mutation("monitor/health/drift/watch.py", '"segments": 0.15', '"segments": 0.25', _ROWS),
    Mutation("monitor/health/drift/watch.py", '_SHARES["quality"] * max(1, len(self.rules))',
             '_SHARES["quality"]', _ROWS),
    Mutation("monitor/health/drift/watch.py", '_SHARES["repeats"] * max(1, columns)',
             '_SHARES["repeats"]', _ROWS),
    Mutation("monitor/health/drift/watch.py", "length * max(series, 1) / limits.COMPOSITION",
             "length / limits.COMPOSITION", _ROWS),
    Mutation("monitor/health/drift/limits.py", "1.0 - COMPOSITION, 1.0)", "1.0, 1.0)", _ROWS),
    Mutation("monitor/health/drift/limits.py", "run_length * max(series, 1) / shares",
             "run_length / shares", _ROWS),
    Mutation("monitor/health/drift/segments.py", "run_length * count * width,",
             "run_length * count,", _ROWS),
    Mutation("monitor/health/drift/together.py", "run_length * (2.0 if kernel else 1.0)",
             "run_length", _ROWS),
    Mutation("monitor/health/performance/watch.py", "self._each = tests * self.run_length",
             "self._each = 3.0 * self.run_length", _PERFORMANCE),
    Mutation("monitor/health/performance/declared.py", "run_length * max(1, len(self.features))",
             "run_length", _PERFORMANCE),
    Mutation("monitor/health/performance/segments.py", "self.run_length * self.most",
             "self.run_length", _PERFORMANCE),
    Mutation("monitor/health/performance/declared.py", " / max(1, len(self.features))\n", "\n",
             (f"{_W}test_budgets.py::test_gaps_of_several_features_share_their_alpha",)),
)  # fmt: skip

DURABILITY = (
    Mutation("understudy/common/durable.py", "            os.fsync(fd)\n", "            pass\n",
             (f"{_DISK}::test_a_batch_is_not_committed_when_the_state_could_not_be_synced",)),
    Mutation("understudy/common/durable.py", "os.fsync(folder)", "pass",
             (f"{_DISK}::test_routes_that_could_not_be_synced_are_not_told",)),
    Mutation("monitor/pipeline/state.py",
             '                self.error = f"{self.path}: {error}"\n                return False\n',
             "                pass\n",
             (f"{_DISK}::test_a_batch_is_not_committed_when_the_state_could_not_be_synced",)),
    Mutation("monitor/pipeline/state.py", "and not await self._before_write():",
             "and await self._before_write() is None:",
             (f"{_DISK}::test_a_batch_is_not_committed_while_its_predictions_wait_for_the_disk",)),
    Mutation("monitor/service/evaluation.py", "feedback.flush if feedback is not None else None",
             "None",
             (f"{_DISK}::test_what_waits_for_labels_is_on_disk_before_the_state_says_so",)),
    Mutation("monitor/experiments/runner.py", "            routes.save(self.state_dir)\n",
             "            pass\n",
             (f"{_DISK}::test_routes_that_could_not_be_synced_are_not_told",)),
    Mutation("monitor/api/experiments.py", "if experiments.error is not None:", "if False:",
             (f"{_DISK}::test_a_call_hears_of_a_change_after_the_workers_have_it",)),
    Mutation("monitor/api/experiments.py", "if not reloaded.ok:", "if False:",
             (f"{_DISK}::test_a_call_hears_of_a_change_after_the_workers_have_it",)),
    Mutation("monitor/kafka/publishing.py", "routes.save(self._settings.state_dir)", "pass",
             (f"{_DISK}::test_routes_of_evaluators_are_on_disk_before_the_workers_are_told",)),
    Mutation("monitor/records/audit.py", "                os.fsync(fd)\n            except",
             "                pass\n            except",
             (f"{_DISK}::test_a_line_of_the_audit_log_is_on_disk_or_is_not_there",)),
    Mutation("monitor/records/audit.py", "        if size == 0:\n            self._sync_folder()\n",
             "", (f"{_DISK}::test_a_line_of_the_audit_log_is_on_disk_or_is_not_there",)),
    Mutation("monitor/records/audit.py", "        self._sync_folder()\n        self._size = 0",
             "        self._size = 0", (f"{_DISK}::test_a_full_audit_log_is_renamed_for_good",)),
    Mutation("monitor/findings/service.py", "self.history.append(changes, None, changes[-1].at)",
             "pass", (f"{_DISK}::test_a_finding_is_on_disk_before_anybody_is_told",)),
    Mutation("monitor/kafka/publisher.py", "self.spool.sync()", "pass",
             (f"{_DISK}::test_records_for_kafka_are_committed_once_the_spool_is_synced",)),
    Mutation("monitor/kafka/publisher.py", "return self.spool.error is None", "return True",
             (f"{_DISK}::test_labels_for_kafka_are_taken_once_the_spool_is_synced",)),
    Mutation("monitor/records/log/writer.py",
             "        try:\n            os.fdatasync(self._file)\n",
             "        try:\n            pass\n",
             (f"{_DISK}::test_what_the_log_of_records_calls_synced_is_synced",)),
    Mutation("monitor/records/log/writer.py", "                self._sync_folder()\n", "",
             (f"{_DISK}::test_what_the_log_of_records_calls_synced_is_synced",)),
    Mutation("monitor/archive/recorder.py", "self._log.sync()", "pass",
             (f"{_DISK}::test_what_was_recorded_is_synced_with_every_flush",)),
    Mutation("monitor/baseline/model.py", "os.fsync(file.fileno())", "pass",
             (f"{_DISK}::test_a_baseline_is_synced_before_it_takes_its_name",)),
    Mutation("monitor/labels/file.py", "PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL",
             (f"{_DISK}::test_a_label_is_synced_by_the_transaction_that_takes_it",)),
    Mutation("monitor/labels/file.py", "os.O_CLOEXEC, 0o600", "os.O_CLOEXEC, 0o644",
             (f"{_DISK}::test_files_of_the_state_are_for_their_owner",)),
)  # fmt: skip

BOUNDS = (
    Mutation("monitor/evidence/joiner.py", "if len(self._waiting) >= self.limit:", "if False:",
             (f"{_BOUNDS}::test_a_joiner_gives_up_the_oldest_and_counts_it",)),
    Mutation("monitor/evidence/joiner.py", "self._dropped(key, halves)", "pass",
             (f"{_BOUNDS}::test_a_joiner_gives_up_the_oldest_and_counts_it",)),
    Mutation("monitor/evidence/mirrored.py", "fate=UNPAIRED,", "",
             (f"{_BOUNDS}::test_halves_of_pairs_wait_within_bounds_and_lost_ones_reach_the_experiment",)),
    Mutation("monitor/evidence/mirrored.py", "if len(self._inputs) >= _MOST_INPUTS:", "if False:",
             (f"{_BOUNDS}::test_inputs_of_requests_are_remembered_within_bounds",)),
    Mutation("monitor/evidence/decoding.py", "if len(self._specs) >= _MAX_SPECS:", "if False:",
             (f"{_BOUNDS}::test_rules_of_decoding_are_kept_within_bounds",)),
    Mutation("monitor/pipeline/pipeline.py", " and len(self.features) < _MAX_MODELS", "",
             (f"{_BOUNDS}::test_statistics_of_models_are_kept_within_bounds",)),
    Mutation("shadow/experiment/units.py", "if len(self._rows) > self.limit:", "if False:",
             (f"{_BOUNDS}::test_units_beyond_the_limit_are_sampled",)),
    Mutation("shadow/comparison/worst.py", "del self.entries[self.keep :]", "pass",
             (f"{_BOUNDS}::test_the_worst_disagreements_are_bounded",)),
    Mutation("monitor/labels/service.py", "if len(self._pending) >= MOST_WAITING:", "if False:",
             (f"{_BOUNDS}::test_predictions_that_wait_for_the_disk_are_bounded_and_dropped_ones_are_a_metric",)),
    Mutation("monitor/labels/service.py", "self.dropped += 1", "pass",
             (f"{_BOUNDS}::test_predictions_that_wait_for_the_disk_are_bounded_and_dropped_ones_are_a_metric",)),
    Mutation("monitor/labels/service.py", "batch[-room:] if room > 0 else []", "batch",
             (f"{_BOUNDS}::test_predictions_that_the_disk_refuses_are_kept_within_the_same_bound",)),
    Mutation("monitor/ingest/cloudevents.py", "len(self._waiting) >= MAX_WAITING or ", "",
             (f"{_BOUNDS}::test_halves_of_events_wait_within_bounds",)),
    Mutation("monitor/ingest/service.py", "if len(self._known_ids) > MAX_KNOWN_IDS:", "if False:",
             (f"{_BOUNDS}::test_ids_by_which_records_are_known_again_are_bounded",)),
    Mutation("monitor/archive/recorder.py", "            records >= 0\n", "            False\n",
             (f"{_BOUNDS}::test_lines_that_wait_for_the_log_of_records_are_bounded",)),
    Mutation("monitor/kafka/publisher.py", 'self.dropped["disk"] += self._unsaved.popleft().records',
             "break",
             (f"{_BOUNDS}::test_records_that_the_spool_cannot_take_are_bounded_and_counted",)),
    Mutation("monitor/findings/channels/base.py", "MAX_NOTIFIED - len(self.notified)", "MAX_NOTIFIED",
             (f"{_BOUNDS}::test_findings_that_a_receiver_knows_of_are_bounded",)),
    Mutation("monitor/findings/ledger.py", "if len(open_) < self.limits.max_open:", "if True:",
             (f"{_BOUNDS}::test_open_findings_and_openings_of_a_model_are_bounded_and_the_rest_is_said",)),
    Mutation("monitor/findings/silences.py", "if len(self._by_id) >= MAX_SILENCES:", "if False:",
             (f"{_BOUNDS}::test_silences_are_bounded",)),
    Mutation("monitor/health/drift/watch.py", " and len(self._rows) >= _MOST_LAYOUTS",
             " and False", (f"{_BOUNDS}::test_rows_that_wait_for_others_are_bounded",)),
    Mutation("monitor/ingest/service.py", "if index >= MOST_ITEMS:", "if False:",
             (f"{_BOUNDS}::test_posted_records_are_bounded_in_bytes_and_items",)),
    Mutation("monitor/ingest/service.py", "if self._bytes > MAX_POST_BYTES:", "if False:",
             (f"{_BOUNDS}::test_payloads_of_a_post_are_bounded_also_where_they_repeat_names",)),
    Mutation("monitor/ingest/records.py", "if sum(map(len, features)) * rows > MAX_NAME_BYTES:",
             "if False:",
             (f"{_BOUNDS}::test_payloads_of_a_post_are_bounded_also_where_they_repeat_names",)),
    Mutation("monitor/pipeline/recent.py", "len(self._records) > self.keep or", "False or",
             ("tests/pipeline/test_pipeline.py::test_recent_records_are_bounded_by_count_and_by_bytes",)),
    Mutation("monitor/pipeline/exemplars.py", "if len(self._last) >= _MAX_SERIES:", "if False:",
             ("tests/pipeline/test_pipeline.py::test_exemplars_are_bounded",)),
    Mutation("monitor/proxy/mirror.py", 'self._skip(exchange, record.QUEUE_FULL)', "pass",
             ("tests/proxy/test_mirror.py::test_mirrored_requests_are_bounded_in_number_and_bytes_and_all_counted",)),
    Mutation("monitor/records/slots.py", "while len(self._slots) >= MAX_SLOTS:", "while False:",
             ("tests/records/test_server.py::test_the_number_of_slots_is_bounded",)),
)  # fmt: skip

WATCHDOG = (
    Mutation("monitor/supervisor/supervisor.py", "loop.create_task(watch(self._children))", "None",
             (f"{_HUNG}::test_a_worker_that_hangs_is_replaced",)),
    Mutation("monitor/supervisor/watchdog.py", "counted = min(elapsed, MOST_SECONDS)",
             "counted = elapsed",
             (f"{_WATCHDOG}::test_a_pause_of_the_supervisor_does_not_count",)),
    Mutation("monitor/supervisor/watchdog.py", "if now.runnable:", "if False:",
             (f"{_WATCHDOG}::test_time_without_a_processor_does_not_count",)),
    Mutation("monitor/supervisor/supervisor.py", 'worker.tell({"do": "cover", "slots": slots})',
             "pass",
             (f"{_HUNG}::test_the_others_accept_for_a_worker_that_hangs",)),
    Mutation("monitor/service/evaluation.py", "        lambda: _beat(heartbeat, plane.supervisor),\n", "",
             (f"{_HUNG}::test_an_evaluation_plane_that_hangs_is_replaced",)),
    Mutation("monitor/service/evaluation.py", "            await plane.refresh()\n",
             "            plane.tick()\n",
             (f"{_HUNG}::test_liveness_does_not_wait_for_metrics",)),
    Mutation("monitor/supervisor/child.py",
             "(used := private_bytes(pid)) > limits.memory", "(used := 0) > limits.memory",
             (f"{_HUNG}::test_an_evaluation_plane_that_takes_too_much_memory_is_replaced",)),
    Mutation("monitor/supervisor/child.py", "        self.limits.apply(process.pid)\n", "",
             (f"{_HUNG}::test_the_evaluation_plane_has_a_lower_priority",)),
)  # fmt: skip

ADMISSION = (
    Mutation("monitor/proxy/acceptor.py",
             "owner.exhausted()\n                owner.loop.remove_reader(self._listener)\n",
             "owner.exhausted()\n", (f"{_ADMISSION}::test_accepting_waits_for_descriptors_and_makes_room",)),
    Mutation("monitor/proxy/descriptors.py", " - min(upstreams, free // 2)", "",
             (f"{_ADMISSION}::test_descriptors_are_reserved_for_model_servers",)),
    Mutation("monitor/proxy/pool.py", "if none_left(error):",
             "if False:",
             (f"{_ADMISSION}::test_no_descriptor_for_the_model_server_is_our_overload",)),
    Mutation("monitor/proxy/worker.py", "held - self.lingering >= self._limit", "False",
             (f"{_ADMISSION}::test_handshakes_count_as_connections_and_end_in_time",)),
    Mutation("monitor/proxy/worker.py", "self.lingering >= most or", "",
             (f"{_REFUSALS}::test_few_refused_clients_linger",)),
    Mutation("monitor/proxy/client.py", "        receive_little(transport)\n", "",
             (f"{_REFUSALS}::test_the_kernel_keeps_little_of_what_refused_clients_still_send",)),
    Mutation("monitor/proxy/client.py", "self._turns = self.worker.runtime.refused_turns", "pass",
             (f"{_REFUSALS}::test_the_kernel_keeps_little_of_what_refused_clients_still_send",)),
    Mutation("monitor/labels/file.py", "return max(0, lacking_bytes(self.path.parent, _WAL_BYTES // 2))",
             "return 0", ("tests/labels/test_store.py::test_predictions_do_not_fill_the_disk_of_the_state",)),
    Mutation("monitor/pipeline/pipeline.py", "if record.sampled and", "if record.trace_id and",
             ("tests/pipeline/test_pipeline.py::test_the_last_trace_of_each_bucket_is_the_exemplar",)),
    Mutation("monitor/proxy/client.py", "if self.fresh and limits.header_timeout < limit:",
             "if False:",
             (f"{_ADMISSION}::test_a_client_that_sends_nothing_has_the_time_of_a_head",)),
    Mutation("monitor/proxy/client.py", "if head.length > runtime.body_limit:", "if False:",
             (f"{_EXPECT}::test_a_body_that_is_too_large_is_refused_before_it_is_sent",)),
    Mutation("monitor/proxy/incoming.py", "if self.request_size > self.runtime.body_limit:",
             "if False:", (f"{_EXPECT}::test_a_chunked_body_is_refused_once_it_is_too_large",)),
    Mutation("monitor/proxy/memory.py", "return self.used + size <= self.limit // 2", "return True",
             (f"{_MEMORY}::test_copies_for_records_and_mirrors_give_way",)),
    Mutation("monitor/proxy/memory.py", "self.force(more)", "self.used += more",
             (f"{_MEMORY}::test_heads_that_do_not_end_count",)),
    Mutation("monitor/proxy/exchange.py", "if not self._keep_body(must=self.queue_ns >= 0):", "if False:",
             (f"{_MEMORY}::test_requests_that_wait_for_the_model_server_are_refused_when_they_are_too_many",)),
    Mutation("monitor/proxy/upstream.py", "if self.pool.memory.copy(more):", "if True:",
             (f"{_MEMORY}::test_copies_for_records_and_mirrors_give_way",)),
)  # fmt: skip

COMMANDS = (
    Mutation("monitor/api/server.py", "limit_concurrency=MOST_CONNECTIONS",
             "limit_concurrency=1 << 30",
             (f"{_CONNECTIONS}::test_requests_of_the_control_api_that_are_answered_together_are_bounded",)),
    Mutation("monitor/api/connections.py", "            self._make_room()\n", "            pass\n",
             (f"{_CONNECTIONS}::test_clients_that_do_nothing_do_not_keep_others_out_of_the_control_api",)),
    Mutation("monitor/api/connections.py",
             "self._timer = self.loop.call_later(HEAD_SECONDS, self._close)", "pass",
             (f"{_CONNECTIONS}::test_the_head_of_a_request_to_the_control_api_has_to_come",)),
    Mutation("monitor/kafka/commands.py", "self._closed = True", "pass",
             (f"{_COMMANDS}::test_closing_fails_waiting_and_later_calls",)),
    Mutation("monitor/kafka/commands.py", "waiting, self._waiting = self._waiting, deque()",
             "waiting = deque()",
             (f"{_COMMANDS}::test_closing_fails_waiting_and_later_calls",)),
    Mutation("monitor/kafka/commands.py", "if one.reads or not only_reading]", "if True]",
             (f"{_COMMANDS}::test_while_partitions_are_taken_over_only_reading_is_done",)),
    Mutation("monitor/kafka/commands.py", "if only_reading and not one.reads)", "if False)",
             (f"{_COMMANDS}::test_while_partitions_are_taken_over_only_reading_is_done",)),
    Mutation("monitor/kafka/commands.py", "self.future.set_exception(error)", "raise",
             (f"{_COMMANDS}::test_an_exception_reaches_the_caller_and_does_not_stop_other_calls",)),
    Mutation("monitor/kafka/commands.py", "            return  # the caller has cancelled it",
             "            pass", (f"{_COMMANDS}::test_a_cancelled_call_is_not_made",)),
)  # fmt: skip

SECRETS = (
    Mutation("monitor/config/fields.py", 'if match is None and "@" in value:', "if False:",
             (f"{_SECRETS}::test_a_refused_configuration_does_not_repeat_a_secret",)),
    Mutation("monitor/config/fields.py", 'if "?" in value or "#" in value:\n        raise Pydantic',
             "if False:\n        raise Pydantic",
             (f"{_SECRETS}::test_a_refused_configuration_does_not_repeat_a_secret",)),
    Mutation("understudy/common/problems.py", "if kind == NOT_SHOWN:", "if False:",
             (f"{_SECRETS}::test_a_refused_configuration_does_not_repeat_a_secret",)),
    Mutation("monitor/findings/notify.py", "in missing_variables(configs):", "in ():",
             (f"{_SECRETS}::test_variables_of_channels_that_are_not_set_are_reported_at_the_start",)),
    Mutation("monitor/findings/post.py", 'f"{authority}: {error}"', 'f"{url}: {error}"',
             (f"{_SECRETS}::test_a_channel_that_cannot_be_reached_names_host_and_port_only",)),
    Mutation("monitor/supervisor/run_directory.py", "        path.chmod(0o700)\n",
             "        path.chmod(0o755)\n",
             (f"{_SECRETS}::test_plan_and_configuration_lie_in_a_folder_for_the_owner",)),
    Mutation("monitor/records/handoff.py", "os.umask(0o177)", "os.umask(0o022)",
             (f"{_SECRETS}::test_the_hand_off_and_the_statistics_are_for_the_owner",)),
    Mutation("monitor/stats/shared.py", "os.O_EXCL, 0o600", "os.O_EXCL, 0o644",
             (f"{_SECRETS}::test_the_hand_off_and_the_statistics_are_for_the_owner",)),
)  # fmt: skip

_SHARED = "tests/stats/test_shared.py"
_STATE = f"{_W}test_state_files.py"

STATISTICS = (
    Mutation("monitor/stats/shared.py", "os.posix_fallocate(fd, 0, allocated)", "pass",
             (f"{_SHARED}::test_every_page_that_is_stored_to_has_room_on_the_disk",)),
    Mutation("monitor/stats/shared.py",
             "os.posix_fallocate(self._fd, self._allocated, wanted - self._allocated)", "pass",
             (f"{_SHARED}::test_every_page_that_is_stored_to_has_room_on_the_disk",)),
    Mutation("monitor/stats/shared.py", "        if is_other or kind == GAUGE:\n            return self._sinks[kind]\n",
             "        if True:\n            return self._sinks[kind]\n",
             (f"{_SHARED}::test_what_has_no_room_is_counted_as_other",)),
    Mutation("monitor/stats/shared.py", "            self._move(kind, source, target)\n", "",
             (f"{_SHARED}::test_rows_of_removed_arms_are_used_again_and_no_count_is_lost",)),
    Mutation("monitor/stats/shared.py", "            hold.forget(source)\n", "            pass\n",
             (f"{_SHARED}::test_a_row_that_is_used_while_it_is_freed_counts_as_other",)),
    Mutation("monitor/stats/shared.py", "        if kind == GAUGE and self.words[self._known[kind, key]]:\n",
             "        if False:\n",
             (f"{_SHARED}::test_removed_arms_are_kept_for_a_while_and_then_freed",)),
    Mutation("monitor/stats/shared.py", ">= IMPOSSIBLE:\n", "< 0:\n",
             (f"{_SHARED}::test_a_count_that_would_overflow_is_not_taken_over",)),
    Mutation("monitor/stats/shared.py", "            if self.path.is_symlink():\n                self.path.unlink()\n", "",
             (f"{_SHARED}::test_a_link_is_not_followed",)),
    Mutation("monitor/stats/windows.py", " - moved.counters.get(series, 0)", "",
             (f"{_SHARED}::test_moving_counts_to_other_is_not_traffic",)),
    Mutation("monitor/stats/totals.py", "            if run in self._added:\n", "            if False:\n",
             (f"{_SHARED}::test_a_crash_between_the_write_and_the_deletion_counts_nothing_twice",)),
    Mutation("monitor/stats/totals.py", "            if missing > 0:\n",
             "            if False:\n",
             (f"{_SHARED}::test_the_accounts_of_a_killed_run_are_settled",)),
    Mutation("monitor/stats/totals.py", "        if left > 0:\n", "        if False:\n",
             (f"{_SHARED}::test_the_accounts_of_a_killed_run_are_settled",)),
)  # fmt: skip

STATE = (
    Mutation("monitor/supervisor/supervisor.py", "error = await self.confirmed(generation)",
             "error = None",
             ("tests/supervisor/test_supervisor.py::"
              "test_a_reload_that_a_worker_does_not_follow_is_answered_so",)),
    Mutation("monitor/proxy/handoff.py", "            words[self._lost] += missing\n",
             "            pass\n",
             ("tests/proxy/test_handoff.py::"
              "test_records_of_a_killed_worker_are_lost_once_when_the_state_goes_back",)),
    Mutation("understudy/common/durable.py", "if data[len(_SEAL) : _SEALED] != _digest(rest) + b'\",':",
             "if False:", (f"{_STATE}::test_a_document_is_read_as_it_was_written",
                           f"{_STATE}::test_a_damaged_document_is_set_aside_and_said")),
    Mutation("understudy/common/durable.py", "os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC",
             "os.O_RDONLY | os.O_CLOEXEC", (f"{_STATE}::test_a_document_behind_a_link_is_not_read",)),
    Mutation("understudy/common/durable.py",
             "    with contextlib.suppress(FileNotFoundError):\n        temporary.unlink()\n", "",
             (f"{_STATE}::test_a_planted_temporary_file_is_not_written_through",)),
    Mutation("monitor/supervisor/run_directory.py", "            self._refuse_shared()\n", "",
             (f"{_STATE}::test_a_folder_that_every_user_may_write_to_is_refused",)),
    Mutation("monitor/supervisor/run_directory.py", "            self._set_links_aside()\n", "",
             (f"{_STATE}::test_links_in_the_state_folder_are_set_aside_at_the_start",)),
    Mutation("monitor/supervisor/run_directory.py", "                    shutil.rmtree(path)\n",
             "                    pass\n",
             (f"{_STATE}::test_folders_in_memory_of_services_that_are_gone_are_removed",)),
    Mutation("monitor/cli/serve.py", "    os.umask(0o077)\n", "",
             (f"{_STATE}::test_every_file_of_the_service_is_for_its_user",)),
    Mutation("monitor/service/evaluation.py",
             "        faults.note(time.monotonic() - started)\n", "        pass\n",
             (f"{_STATE}::test_a_state_that_fails_again_and_again_is_set_aside",)),
    Mutation("monitor/supervisor/faults.py",
             "self._count() + 1 if seconds < FAULT_SECONDS else 1", "self._count() + 1",
             (f"{_STATE}::test_errors_that_are_far_apart_do_not_cost_the_state",)),
    Mutation("monitor/pipeline/plane.py", "        found += _set_aside(self.settings.state_dir)\n", "",
             (f"{_STATE}::test_a_damaged_document_is_set_aside_and_said",)),
    Mutation("monitor/ingest/cloudevents.py", "self._bytes + size > MAX_WAITING_BYTES:", "False:",
             (f"{_STATE}::test_events_that_wait_for_their_other_half_are_bounded_in_bytes",)),
    Mutation("monitor/records/log/writer.py", "            self._make_room(sum(map(len, entries)))\n", "",
             (f"{_STATE}::test_a_record_log_leaves_room_on_its_disk",
              f"{_STATE}::test_a_queue_on_a_full_disk_keeps_what_it_has")),
    Mutation("monitor/records/log/writer.py", "if self.unread is not None or not self.delete_first():",
             "if not self.delete_first():",
             (f"{_STATE}::test_a_queue_on_a_full_disk_keeps_what_it_has",)),
    Mutation("monitor/records/slots.py", "(*self._earlier.items(), *self._slots.items())",
             "self._slots.items()",
             (f"{_STATE}::test_slots_of_earlier_runs_are_kept_until_their_accounts_are_settled",)),
)  # fmt: skip

PROXIES = (
    Mutation("understudy/common/http.py", "outside and not", "not",
             (f"{_HTTP}::test_our_own_services_are_never_asked_through_a_proxy",)),
    Mutation("understudy/common/http.py", "outside: bool = False", "outside: bool = True",
             (f"{_HTTP}::test_our_own_services_are_never_asked_through_a_proxy",)),
    Mutation("understudy/common/http.py", 'outside and not is_loopback(parts.hostname or "")',
             "outside", (f"{_HTTP}::test_a_receiver_on_this_machine_is_asked_directly",)),
    Mutation("understudy/common/http.py", "setLevel(logging.WARNING)", "getEffectiveLevel()",
             (f"{_HTTP}::test_neither_addresses_nor_tokens_are_logged",)),
    Mutation("understudy/common/http.py", "({type(error).__name__})", "({error})",
             (f"{_SECRETS}::test_a_request_that_cannot_be_sent_does_not_repeat_its_headers",)),
    Mutation("monitor/ingest/poster.py", "ProxyHandler({})", "ProxyHandler()",
             (f"{_SECRETS}::test_what_middleware_sends_goes_through_no_proxy_of_the_environment",)),
)  # fmt: skip

PAGES = (
    Mutation("understudy/common/templates.py", "autoescape=True", "autoescape=False",
             ("tests/cli/test_objectives.py::test_the_page_shows_who_is_on_the_front",)),
    Mutation("monitor/console/page.py", "return _static().get(name)",
             'return ("", file.read_bytes()) if (file := _FOLDER / "static" / name).is_file() else None',
             (f"{_SECRETS}::test_static_files_are_those_of_their_folder_alone",)),
)  # fmt: skip

_CREDENTIALS = "tests/proxy/test_credentials.py"
_CLIENT_IDS = "tests/experiments/test_client_ids.py"

TRUST = (
    Mutation(
        "monitor/proxy/outgoing.py",
        "return _CREDENTIAL if self._is_credential(name) else _KEPT",
        "return _KEPT",
        (f"{_CREDENTIALS}::test_a_challenger_gets_no_credential_of_a_client",),
    ),
    Mutation(
        "monitor/proxy/outgoing.py",
        "if not any(map(self._is_secret, names_in(pair)))",
        "if True",
        (f"{_CREDENTIALS}::test_a_challenger_gets_no_credential_of_a_client",),
    ),
    Mutation(
        "monitor/records/credentials.py",
        'unquote_to_bytes(parameter.partition(b"=")[0])',
        'parameter.partition(b"=")[0]',
        (f"{_CREDENTIALS}::test_a_challenger_gets_no_credential_of_a_client",),
    ),
    Mutation(
        "monitor/records/credentials.py",
        '.replace(b"_", b"-")',
        "",
        (f"{_CREDENTIALS}::test_headers_are_set_and_removed_in_every_spelling",),
    ),
    Mutation(
        "monitor/config/model.py",
        'credentials: CredentialsTo = "remove"',
        'credentials: CredentialsTo = "forward"',
        (f"{_CREDENTIALS}::test_a_challenger_gets_no_credential_of_a_client",),
    ),
    Mutation(
        "monitor/proxy/framing.py",
        'self._request and _is_credential(text.partition(b":")[0])',
        "False",
        (f"{_CREDENTIALS}::test_credentials_are_not_smuggled_in_trailers",),
    ),
    Mutation(
        "monitor/config/header_values.py",
        "or not is_header_value(found)",
        "",
        (
            "tests/config/test_headers.py::"
            "test_a_file_without_a_value_is_an_error_that_names_the_key",
        ),
    ),
    Mutation(
        "monitor/proxy/mirror.py",
        'exchange.proxy_id.to_bytes(8, "little")',
        "exchange.request_id",
        ("tests/proxy/test_mirror.py::test_the_sample_is_by_ids_that_clients_cannot_choose",),
    ),
    Mutation(
        "monitor/evidence/mirrored.py",
        "key = block.keys[record]",
        "key = block.ids[record]",
        (f"{_CLIENT_IDS}::test_answers_are_paired_by_ids_of_the_proxy",),
    ),
    Mutation(
        "monitor/health/performance/sampled.py",
        "self._waiting.setdefault((request_id, row), (score, started))",
        "self._waiting[request_id, row] = (score, started)",
        (
            "tests/health/performance/test_live.py::"
            "test_a_client_that_repeats_its_id_holds_up_no_other_predictions",
        ),
    ),
)

MUTATIONS = (
    *REDACTION,
    *TOKENS,
    *BUDGETS,
    *DURABILITY,
    *BOUNDS,
    *WATCHDOG,
    *ADMISSION,
    *COMMANDS,
    *SECRETS,
    *STATISTICS,
    *STATE,
    *PROXIES,
    *PAGES,
    *TRUST,
)


class Tree:
    """A copy of the repository in which files are changed and put back."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tree"
        shutil.copytree(ROOT, self.path, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        self._stamp = int(time.time())

    def write(self, file: str, text: str) -> None:
        """Change a file, with a unique time stamp: Python knows compiled files by time and size."""
        path = self.path / file
        path.write_text(text, encoding="utf-8")
        self._stamp += 2
        os.utime(path, (self._stamp, self._stamp))

    def test(self, tests: Sequence[str]) -> tuple[int, str]:
        """Run tests of the copy; the exit code of pytest (1: tests failed) and what it wrote.

        In a fork of this process, which has loaded what other projects wrote: that is most of the
        work of a test that itself takes a moment.
        """
        with tempfile.TemporaryFile("w+") as output:
            child = os.fork()
            if not child:
                self._test(tests, output.fileno())
            end = time.monotonic() + _PATIENCE
            while not (done := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    return -1, f"not done within {_PATIENCE:g} s"
                time.sleep(0.05)
            output.seek(0)
            return os.waitstatus_to_exitcode(done[1]), output.read()

    def _test(self, tests: Sequence[str], output: int) -> NoReturn:
        """In the fork."""
        code = 70
        try:
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(self.path)
            os.environ["PYTHONPATH"] = str(self.path)
            sys.path.insert(0, str(self.path))
            import pytest

            options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
            code = int(pytest.main([*options, *tests]))
            sys.stdout.flush()
        finally:
            os._exit(code)


def preload() -> None:
    """Import what the tests need of others, and nothing of the tree."""
    for name in _OF_OTHERS:
        try:
            importlib.import_module(name)
        except ImportError:
            pass  # an extra


def run(chosen: Sequence[Mutation]) -> int:
    """Try the mutations; 0 when all of them were noticed."""
    bad: list[str] = []
    preload()
    with tempfile.TemporaryDirectory(prefix="understudy-mutations-") as folder:
        tree = Tree(Path(folder))
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        code, said = tree.test(tests)
        if code != 0:
            print(said)
            print("the tests fail without a mutation: nothing can be learned from them")
            return 1
        for number, mutation in enumerate(chosen, start=1):
            original = (tree.path / mutation.file).read_text(encoding="utf-8")
            try:
                changed = mutation.mutated(original)
            except ValueError as error:
                verdict, said = "not found", str(error)
            else:
                tree.write(mutation.file, changed)
                code, said = tree.test(mutation.tests)
                tree.write(mutation.file, original)
                verdict = {0: "survived", 1: "killed"}.get(code, f"error {code}")
            print(f"{number:3}/{len(chosen)} {verdict:9} {mutation.name}", flush=True)
            if verdict != "killed":
                bad.append(mutation.name)
                if verdict != "survived":
                    print("\n".join(said.splitlines()[-15:]), flush=True)
    print(f"{len(chosen) - len(bad)} of {len(chosen)} mutations were noticed")
    return 1 if bad else 0


def main(arguments: Sequence[str]) -> int:
    """All mutations, or those that hold one of the texts in ``arguments``."""
    chosen = [
        mutation
        for mutation in MUTATIONS
        if not arguments
        or any(text in mutation.file or text in mutation.fragment for text in arguments)
    ]
    if not chosen:
        print(f"no mutation holds {' or '.join(arguments)}")
        return 1
    return run(chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
