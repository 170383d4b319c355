"""The ramp: what each verdict, command and silence does, and what may never happen."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from understudy.shadow import rollout
from understudy.shadow.assignment import POINTS, Allocation
from understudy.shadow.rollout import (
    DWELL_SECONDS,
    PHASES,
    SELF,
    TERMINAL,
    VERDICTS,
    Event,
    Rollout,
    RolloutError,
    Stage,
    Step,
    replayed,
    stages_from,
    step,
)

RAMP = stages_from((0.0, 0.01, 0.05, 0.25, 0.5, 1.0), minimum_requests=100)


def begun(stages: tuple[Stage, ...] = RAMP, **changes: Any) -> Rollout:
    return replace(Rollout.begin("delays", "candidate", stages, 0.0), **changes)


def at(name: str, **changes: Any) -> Rollout:
    """In the stage of that name."""
    index = [stage.name for stage in RAMP].index(name)
    return begun(**{"index": index, "weight": RAMP[index].weight, **changes})


class TestRamp:
    def test_a_good_challenger_passes_each_stage_and_is_promoted_by_the_decision(self):
        state, seen, now = begun(), [], 0.0
        while state.live:
            now += 10.0
            state, events = step(state, now, "promote", ("better",), state.exposure + 100)
            seen += [(event.kind, event.weight) for event in events]
        assert seen == [
            ("advanced", 0.01),
            ("advanced", 0.05),
            ("advanced", 0.25),
            ("advanced", 0.5),
            ("promoted", 1.0),
        ]

    def test_without_harm_it_comes_to_the_last_stage_and_no_further(self):
        state = begun()
        for now in range(1, 50):
            state, _ = step(state, float(now), "continue", (), state.exposure + 1000)
        assert (state.stage.name, state.phase, state.weight) == ("50 %", "running", 0.5)

    def test_a_last_stage_that_requires_no_harm_requires_a_decision_all_the_same(self):
        stages = (Stage("10 %", "split", 0.1, requires="no_harm"),)
        state, events = step(begun(stages), 1e6, "continue", (), 10**6)
        assert (state.phase, events) == ("running", ())
        manual = (replace(stages[0], gate="manual"),)
        state, events = step(begun(manual), 1e6, "continue", (), 10**6)
        assert (state.phase, events) == ("running", ())

    @pytest.mark.parametrize("verdict", ["promote", "continue"])
    def test_no_traffic_neither_promotes_nor_aborts(self, verdict: str):
        for stage in (replace(stage, minimum_requests=0) for stage in RAMP[:-1]):
            state = begun((stage,))
            assert step(state, 1e9, verdict, (), 0) == (state, ())

    def test_requests_of_earlier_stages_do_not_count(self):
        state, _ = step(at("1 %"), 1.0, "promote", (), 100)
        assert state.stage.name == "5 %"
        assert step(state, 2.0, "promote", (), 199) == (state, ())
        assert step(state, 2.0, "promote", (), 200)[0].stage.name == "25 %"

    def test_split_counts_its_own_requests_not_those_of_the_shadow(self):
        state, _ = step(begun(), 1.0, "promote", (), 5000)
        assert (state.mode, state.exposure) == ("split", 0)

    def test_a_stage_lasts_its_minimum(self):
        state = begun(stages_from((0.1, 0.5), 1, minimum_seconds=60.0))
        assert step(state, 59.9, "promote", (), 500) == (state, ())
        assert step(state, 60.0, "promote", (), 500)[0].weight == 0.5

    def test_a_shadow_alone_promotes_nobody_by_itself(self):
        state, _ = step(begun(stages_from((0.0,))), 1.0, "promote", (), 500)
        assert (state.phase, state.weight) == ("promoted", 0.0)


class TestHarm:
    @pytest.mark.parametrize("phase", [phase for phase in PHASES if phase not in TERMINAL])
    def test_takes_the_challenger_off_at_once(self, phase: str):
        state, events = step(at("25 %", phase=phase), 1.0, "rollback", ("errors", "p99"), 7)
        assert (state.phase, state.weight) == ("rolled_back", 0.0)
        assert [event.to_dict()["reasons"] for event in events] == [["errors", "p99"]]
        assert (events[0].why, events[0].who) == ("errors; p99", SELF)

    def test_evidence_that_cannot_be_trusted_waits_for_a_person_at_its_weight(self):
        state, (event,) = step(at("25 %"), 1.0, "invalid", ("the split is not honoured",), 7)
        assert (state.phase, state.weight) == ("paused", 0.25)
        assert event.why == "the split is not honoured"
        assert step(state, 2.0, "invalid", ("the split is not honoured",), 8) == (state, ())
        assert step(state, 1e9, "promote", (), 10**6) == (state, ())

    def test_or_rolls_back_if_so_configured(self):
        state, _ = step(at("25 %", on_invalid="rollback"), 1.0, "invalid", (), 7)
        assert (state.phase, state.weight) == ("rolled_back", 0.0)


class TestGoingBack:
    def test_requests_from_before_the_stage_do_not_count_when_the_evidence_is_older(self):
        """After a crash the rollout is that of the last change, the evidence that of before."""
        state, (event,) = step(at("5 %", exposure=1000), 5.0, "promote", (), 900)
        assert (event.kind, state.stage.name, state.exposure) == ("recounted", "5 %", 900)
        assert step(state, 6.0, "promote", (), 999) == (state, ())
        assert step(state, 6.0, "promote", (), 1000)[0].stage.name == "25 %"

    def test_a_clock_set_back_starts_the_stage_anew(self):
        stages = stages_from((0.1, 0.5), 1, minimum_seconds=60.0)
        state, (event,) = step(begun(stages, since=1000.0), 10.0, "promote", (), 50)
        assert (event.kind, state.since, state.weight) == ("recounted", 10.0, 0.1)
        assert step(state, 69.0, "promote", (), 50) == (state, ())
        assert step(state, 70.0, "promote", (), 50)[0].weight == 0.5

    def test_a_clock_set_back_does_not_stall_a_gradual_roll_back(self):
        state, _ = rollout.abort(at("50 %"), 1e9, "ada", "slow", gradual=True)
        state, _ = step(state, 5.0, "continue", (), 1)
        state, _ = step(state, 5.0 + DWELL_SECONDS, "continue", (), 1)
        assert state.weight == 0.25

    def test_a_time_that_is_no_number_moves_nothing_on(self):
        state = at("5 %")
        assert step(state, math.nan, "promote", (), 10**6) == (state, ())

    def test_a_verdict_that_does_not_exist_is_refused(self):
        with pytest.raises(RolloutError, match="promote, rollback, continue, invalid"):
            step(at("5 %"), 1.0, "promoted", (), 10**6)


class TestPeople:
    def test_a_manual_gate_waits_for_approval(self):
        state = begun((replace(RAMP[1], gate="manual"), RAMP[2]))
        waiting, (event,) = step(state, 1.0, "continue", (), 100)
        assert (waiting.phase, event.why) == (
            "waiting",
            "100 requests of the challenger without proven harm",
        )
        assert step(waiting, 1e9, "promote", (), 10**6) == (waiting, ())
        state, (event,) = rollout.approve(waiting, 2.0, "ada", "", 120)
        assert (state.weight, state.phase, state.exposure, event.who) == (
            0.05,
            "running",
            120,
            "ada",
        )
        assert rollout.promote(waiting, 2.0, "ada", "", 120) == (state, (event,))
        assert (event.from_stage, event.stage) == ("1 %", "5 %")

    def test_approval_may_name_the_next_stage_only(self):
        waiting = at("1 %", phase="waiting")
        assert rollout.approve(waiting, 2.0, "ada", "", 9, to="5 %")[0].weight == 0.05
        with pytest.raises(RolloutError, match="skipping one needs force"):
            rollout.approve(waiting, 2.0, "ada", "", 9, to="25 %")

    def test_force_goes_to_all_traffic_or_to_a_later_stage(self):
        state, _ = rollout.promote(at("1 %"), 2.0, "ada", "urgent", 9, force=True)
        assert (state.phase, state.weight) == ("promoted", 1.0)
        state, _ = rollout.promote(at("1 %"), 2.0, "ada", "urgent", 9, force=True, to="50 %")
        assert (state.phase, state.weight, state.exposure) == ("running", 0.5, 9)
        state, _ = rollout.promote(at("1 %"), 2.0, "ada", "urgent", 9, force=True, to="100 %")
        assert (state.phase, state.weight) == ("promoted", 1.0)
        with pytest.raises(RolloutError, match="'5 %', '25 %', '50 %', '100 %'"):
            rollout.promote(at("1 %"), 2.0, "ada", "urgent", 9, force=True, to="shadow")

    def test_a_pause_keeps_the_weight_and_resuming_counts_anew(self):
        paused, _ = rollout.pause(at("5 %"), 5.0, "ada", "lunch")
        assert (paused.phase, paused.weight) == ("paused", 0.05)
        state, _ = rollout.resume(paused, 50.0, "ada", "", 400)
        assert (state.phase, state.since, state.exposure) == ("running", 50.0, 400)
        assert step(state, 60.0, "promote", (), 499) == (state, ())

    def test_a_gradual_roll_back_goes_down_stage_by_stage(self):
        state, _ = rollout.abort(at("50 %"), 0.0, "ada", "slow", gradual=True)
        seen, now = [state.weight], 0.0
        while state.live:
            assert step(state, now + DWELL_SECONDS / 2, "promote", (), 10**6) == (state, ())
            now += DWELL_SECONDS
            state, _ = step(state, now, "promote", (), 10**6)
            seen.append(state.weight)
        assert seen == [0.5, 0.25, 0.05, 0.01, 0.0]
        assert state.phase == "aborted"

    def test_a_gradual_roll_back_can_be_hurried_not_begun_again(self):
        state, _ = rollout.abort(at("50 %"), 0.0, "ada", "slow", gradual=True)
        with pytest.raises(RolloutError, match="aborted at once"):
            rollout.abort(state, 20.0, "ada", "slow", gradual=True)
        assert rollout.abort(state, 20.0, "ada", "now")[0].weight == 0.0

    @pytest.mark.parametrize(
        ("who", "why"), [("", "because"), (" ", "because"), ("ada", ""), ("ada", "\t")]
    )
    def test_abort_and_force_say_who_and_why(self, who: str, why: str):
        with pytest.raises(RolloutError, match="audit log"):
            rollout.abort(at("5 %"), 1.0, who, why)
        with pytest.raises(RolloutError, match="audit log"):
            rollout.promote(at("5 %"), 1.0, who, why, 1, force=True)

    def test_pause_resume_and_approval_say_who(self):
        for command in (
            lambda: rollout.pause(at("5 %"), 1.0, "", "why"),
            lambda: rollout.resume(at("5 %", phase="paused"), 1.0, "", "why", 1),
            lambda: rollout.approve(at("5 %", phase="waiting"), 1.0, "", "why", 1),
        ):
            with pytest.raises(RolloutError, match="name is required"):
                command()

    @pytest.mark.parametrize(
        ("phase", "possible"),
        [
            ("running", "paused, aborted, or promoted with force"),
            ("paused", "resumed, aborted, or promoted with force"),
            ("rolling_back", "aborted at once"),
            ("rolled_back", "start a new experiment"),
        ],
    )
    def test_a_refusal_says_what_is_possible(self, phase: str, possible: str):
        with pytest.raises(RolloutError, match=possible):
            rollout.approve(at("5 %", phase=phase), 1.0, "ada", "", 1)


class TestShapes:
    def test_stages_from_weights(self):
        assert [stage.name for stage in RAMP] == ["shadow", "1 %", "5 %", "25 %", "50 %", "100 %"]
        assert [stage.mode for stage in RAMP] == ["shadow"] + ["split"] * 5
        needs = ["no_harm"] * 4 + ["decision"] * 2
        assert [stage.requires for stage in RAMP] == needs

    @pytest.mark.parametrize(
        "weights", [(), (0.5, 0.25), (0.1, 0.1), (0.1, 1.5), (-0.1,), (math.nan,)]
    )
    def test_what_is_no_ramp_is_refused(self, weights: tuple[float, ...]):
        with pytest.raises(RolloutError):
            stages_from(weights)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"mode": "canary"},
            {"gate": "open"},
            {"requires": "luck"},
            {"minimum_requests": -1},
            {"minimum_seconds": math.nan},
            {"mode": "shadow"},
        ],
    )
    def test_a_stage_that_cannot_be_is_refused(self, wrong: dict[str, Any]):
        with pytest.raises(RolloutError):
            Stage(**{"name": "10 %", "mode": "split", "weight": 0.1, **wrong})

    def test_names_of_stages_differ(self):
        with pytest.raises(RolloutError, match="must be unique"):
            Rollout.begin("e", "c", (RAMP[1], replace(RAMP[2], name="1 %")), 0.0)

    @pytest.mark.parametrize(
        "wrong", [{"format": 2}, {"phase": "gone"}, {"index": 6}, {"index": -1}, {"weight": 0.3}]
    )
    def test_an_invalid_state_is_rejected(self, wrong: dict[str, Any]):
        with pytest.raises(ValueError, match=r"not known|not a valid rollout|no stage"):
            Rollout.from_state({**begun().dump_state(), **wrong})

    def test_events_of_an_unknown_stage_are_not_replayed(self):
        _, (event,) = rollout.pause(begun(), 1.0, "ada", "")
        with pytest.raises(RolloutError, match="no stage '7 %'"):
            replayed(begun(), [replace(event, stage="7 %")])


class TestAllocation:
    def test_units_move_only_to_the_challenger_as_it_grows(self):
        before = rollout.allocation(Allocation(), {1: 0.0}, 2)
        assert before.size(0) == POINTS
        for weight in (0.01, 0.05, 0.25, 0.5, 1.0):
            after = rollout.allocation(before, {1: weight}, 2)
            assert abs(after.size(1) / POINTS - weight) < 1e-9
            assert after.size(0) + after.size(1) == POINTS
            probes = [n * POINTS // 1009 for n in range(1009)]
            assert all(after.arm(p) == 1 for p in probes if before.arm(p) == 1)
            before = after

    def test_the_one_that_was_promoted_takes_what_the_others_had(self):
        before = rollout.allocation(Allocation(), {1: 0.3, 2: 0.3}, 3)
        after = rollout.allocation(before, {1: 1.0, 2: 0.3}, 3)
        assert [after.size(arm) for arm in range(3)] == [0, POINTS, 0]

    def test_two_that_were_promoted_share(self):
        after = rollout.allocation(Allocation(), {1: 1.0, 2: 1.0, 3: 0.1}, 4)
        assert [after.size(arm) / POINTS for arm in range(4)] == [0.0, 0.5, 0.5, 0.0]


WHO = st.sampled_from(["ada", "bob"])
TIMES = st.floats(-100.0, 200.0, allow_nan=False)
SHARES = st.lists(st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5, 1.0]), min_size=1, unique=True)


@st.composite
def ramps(draw: st.DrawFn) -> tuple[Stage, ...]:
    weights = ([0.0] if draw(st.booleans()) else []) + sorted(draw(SHARES))
    return tuple(
        replace(
            stage,
            gate=draw(st.sampled_from(["automatic", "manual"])),
            requires=draw(st.sampled_from(["decision", "no_harm"])),
            minimum_requests=draw(st.integers(0, 20)),
            minimum_seconds=draw(st.sampled_from([0.0, 30.0])),
        )
        for stage in stages_from(weights)
    )


class Ramp(RuleBasedStateMachine):
    """Anything that clocks, evidence and people may do, in any order."""

    @initialize(stages=ramps(), on_invalid=st.sampled_from(["pause", "rollback"]))
    def begin(self, stages: tuple[Stage, ...], on_invalid: str) -> None:
        self.first = self.state = Rollout.begin("delays", "candidate", stages, 0.0, on_invalid)
        self.now, self.requests = 0.0, 0
        self.events: list[Event] = []
        self.shown = False
        """Whether a verdict or a person's force allows what comes."""

    def take(self, found: Step) -> None:
        before, (self.state, events) = self.state, found
        if not before.live:
            assert (self.state, events) == (before, ())
        assert self.state.version == before.version + len(events)
        assert (self.state == before) == (not events)
        versions = [event.version for event in events]
        assert versions == list(range(before.version + 1, self.state.version + 1))
        self.events += events
        if self.state.phase == "promoted" and before.live:
            assert self.shown, "promoted without a decision and without force"

    @rule(elapsed=TIMES, served=st.integers(-20, 60), verdict=st.sampled_from(VERDICTS))
    def judge(self, elapsed: float, served: int, verdict: str) -> None:
        self.now += elapsed
        self.requests = max(0, self.requests + served)
        before = self.state
        # What waits at the last gate waits because of a decision that has been there.
        self.shown = verdict == "promote"
        self.take(step(before, self.now, verdict, ("because",), self.requests))
        if before.live and verdict == "rollback":
            assert (self.state.phase, self.state.weight) == ("rolled_back", 0.0)
        if verdict == "continue" and before.phase != "rolling_back" and self.requests == 0:
            assert self.state.phase == before.phase
            assert self.state.weight == before.weight
        if before.phase in ("paused", "waiting") and verdict in ("promote", "continue", "invalid"):
            assert self.state.weight in (before.weight, 0.0)
            assert self.state.weight == before.weight or before.on_invalid == "rollback"
        if self.state.phase == "waiting" and self.state.last and before.phase != "waiting":
            assert verdict == "promote"

    @rule(
        who=WHO,
        why=st.sampled_from(["", "because"]),
        force=st.booleans(),
        to=st.sampled_from([None, "5 %", "50 %", "100 %"]),
    )
    def promote(self, who: str, why: str, force: bool, to: str | None) -> None:
        before = self.state
        self.shown = force or before.phase == "waiting"
        try:
            found = rollout.promote(before, self.now, who, why, self.requests, force, to)
        except RolloutError:
            return
        assert before.live
        assert (force and why) or before.phase == "waiting"
        self.take(found)

    @rule(who=WHO)
    def pause(self, who: str) -> None:
        before = self.state
        try:
            found = rollout.pause(before, self.now, who, "")
        except RolloutError:
            assert before.phase not in ("running", "waiting")
            return
        self.take(found)
        assert (self.state.phase, self.state.weight) == ("paused", before.weight)

    @rule(who=WHO)
    def resume(self, who: str) -> None:
        try:
            found = rollout.resume(self.state, self.now, who, "", self.requests)
        except RolloutError:
            assert self.state.phase != "paused"
            return
        self.take(found)

    @precondition(lambda self: self.state.live)
    @rule(who=WHO)
    def roll_back_gradually(self, who: str) -> None:
        try:
            found = rollout.abort(self.state, self.now, who, "slow", gradual=True)
        except RolloutError:
            assert self.state.phase == "rolling_back"
            return
        self.take(found)

    @rule(who=WHO)
    def restart(self, who: str) -> None:
        self.state = Rollout.from_state(json.loads(json.dumps(self.state.dump_state())))

    @invariant()
    def the_weight_is_one_of_the_table(self) -> None:
        assert self.state.weight in {0.0, 1.0, *(stage.weight for stage in self.state.stages)}
        if self.state.phase in ("rolled_back", "aborted"):
            assert self.state.weight == 0.0

    @invariant()
    def saving_and_loading_changes_nothing(self) -> None:
        assert Rollout.from_state(json.loads(json.dumps(self.state.dump_state()))) == self.state

    @invariant()
    def the_events_tell_it_all(self) -> None:
        lines = [json.loads(json.dumps(event.to_dict())) for event in self.events]
        read = [Event.from_dict({"seq": 1, **line}) for line in lines]
        assert read == self.events
        assert replayed(self.first, read) == self.state
        assert replayed(self.state, read) == self.state

    @invariant()
    def it_can_be_taken_off_at_any_time_until_it_is_over(self) -> None:
        if self.state.live:
            assert rollout.abort(self.state, self.now, "ada", "now")[0].weight == 0.0
            assert step(self.state, self.now, "rollback", (), self.requests)[0].weight == 0.0
        else:
            with pytest.raises(RolloutError, match="no longer possible"):
                rollout.abort(self.state, self.now, "ada", "now")


Ramp.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestAnyOrder = Ramp.TestCase
