"""The ablation switches off what it says, and its simulated runs are the same each time."""

from __future__ import annotations

from benchmarks.mechanisms import MECHANISMS, noted, without
from benchmarks.scenes import SCENES
from benchmarks.simulation import play

KIND = "twice, bucket 1 s, ms"


def test_a_mechanism_is_off_only_where_it_is_to_be() -> None:
    for mechanism, patches in MECHANISMS.items():
        before = [vars(owner)[name] for owner, name, _ in patches]
        with without(mechanism):
            within = [vars(owner)[name] for owner, name, _ in patches]
        assert any(one is not other for one, other in zip(before, within, strict=True)), mechanism
        assert [vars(owner)[name] for owner, name, _ in patches] == before, mechanism


def test_a_simulated_run_is_the_same_each_time_and_another_without_a_mechanism() -> None:
    with noted() as used:
        score = play(SCENES[KIND], (1,))
    assert play(SCENES[KIND], (1,)) == score
    assert score.used > 0.9
    assert "pace: refusals teach a rate" in used
    with without("pace: refusals teach a rate"):
        assert play(SCENES[KIND], (1,)).refused > 2 * score.refused
