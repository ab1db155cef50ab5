"""Runs and tables of the study on the emoji."""

from __future__ import annotations

import pytest

from studies.emoji import report, run


def measurement(map_at_r: float) -> dict:
    return {
        "test": {"precision_at_1": 50.0, "r_precision": 35.0, "map_at_r": map_at_r},
        "best_epoch": 3,
        "steps_per_epoch": 50,
        "steps": [50, 100, 150],
        "test_map_at_r": [None, 20.0, None],
        "resets_share": 0.12,
    }


def test_runs_of_a_seed_come_before_those_of_the_next():
    runs = list(run.memory())
    assert [one.seed for one in runs] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len({one.directory for one in runs}) == 9


@pytest.mark.parametrize(
    "found, expected",
    [
        ({}, []),
        ({"compare/emoji/seed_0": measurement(1.0)}, []),
        (
            {
                "memory/250/seed_0": measurement(30.0),
                "memory/50/seed_0": measurement(28.0),
                "memory/50/seed_1": measurement(30.0),
            },
            [
                "| 50 | 2 | 50.0 ± 0.0 | 35.0 ± 0.0 | 29.0 ± 1.4 | 200 ± 0 | 20.0 ± 0.0 | 12.0 ± 0.0 % |",
                "| 250 | 1 | 50.0 | 35.0 | 30.0 | 200 | 20.0 | 12.0 % |",
            ],
        ),
    ],
)
def test_a_phase_that_is_not_complete_is_reported(found, expected):
    assert list(report.memory(found))[2:] == expected
