"""The checker of golden files reports damaged, missing and wrong values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.parity import check
from tests.parity.deviations import DEVIATIONS, Deviation

GOLDEN = Path(__file__).parent / "golden"


def _contents(kind: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{kind}.npz") as archive:
        return dict(archive)


def _check(folder: Path, kind: str, arrays: dict[str, np.ndarray]) -> int:
    np.savez(folder / f"{kind}.npz", **arrays)
    return check.main([str(folder)])


@pytest.mark.parametrize(
    "kind, array",
    [
        ("kcenter", "c0_raw/picks"),
        ("class_split", "C10_of4_id2/val_label"),
        ("metrics", "pairs_self_raw/per_query"),
        ("metrics", "atk_1/correct"),
        ("ops", "pdist_dup_ref_l2/grad_ref"),
        ("preprocess", "im0_std/out"),
        ("preprocess", "full_0/out_std"),
        ("grad_transformers", "c1/stage1_0"),
        ("loss_contrastive", None),
        ("callback_trace", "default_like/draws_after"),
    ],
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_changed_or_missing_array_fails(tmp_path, capsys, kind, array, damage):
    arrays = _contents(kind)
    array = array or next(name for name in arrays if name.endswith("/grad_emb"))
    value = arrays.pop(array)
    if damage == "changed":
        changed = np.array(value)
        changed.flat[-1] = changed.flat[-1] * np.float32(1.01) + 1
        arrays[array] = changed
    assert _check(tmp_path, kind, arrays) == 1
    printed = capsys.readouterr().out
    assert f"{kind:28s} FAIL" in printed
    assert f"    {array.split('/')[0]}: " in printed
    assert " 1 failed," in printed


def test_a_damaged_file_fails_and_the_others_are_checked(tmp_path, capsys):
    (tmp_path / "kcenter.npz").write_bytes((GOLDEN / "kcenter.npz").read_bytes()[:5000])
    assert _check(tmp_path, "class_split", _contents("class_split")) == 1
    printed = capsys.readouterr().out
    assert "kcenter                      FAIL" in printed
    assert "class_split                  pass" in printed


@pytest.mark.parametrize("kind", ["unheard_of", "with.dots", "losses"])
def test_an_unknown_kind_is_counted_and_not_passed(tmp_path, capsys, kind):
    assert _check(tmp_path, kind, _contents("kcenter")) == 0
    assert "0 passed, 0 failed, 0 deviate, 9 not ported" in capsys.readouterr().out


def test_a_file_without_cases_fails(tmp_path):
    assert _check(tmp_path, "kcenter", {"config": np.array(json.dumps({"cases": {}}))}) == 1


def test_a_folder_without_files_is_an_error(tmp_path):
    assert check.main([str(tmp_path)]) == 2


def test_a_listed_deviation_that_agrees_fails(tmp_path, monkeypatch):
    monkeypatch.setitem(DEVIATIONS, ("kcenter", "c0_raw"), Deviation(1, "a test"))
    assert _check(tmp_path, "kcenter", _contents("kcenter")) == 1


def test_other_names_seeds_and_sizes_are_read_from_the_file(tmp_path, capsys):
    # Recorded by the definition of k-center: class by class, pick by pick.
    generator = np.random.default_rng(11)
    arrays: dict[str, np.ndarray] = {}
    cases = {}
    for number, (classes, pool, k) in enumerate([(1, 5, 5), (7, 13, 2), (3, 4, 3)]):
        points = generator.normal(size=[classes, pool, 3 + number]).astype(np.float32)
        initial = generator.normal(size=[classes, 1 + number, 3 + number]).astype(np.float32)
        picks = []
        for candidates, covered in zip(points.astype(np.float64), initial.astype(np.float64)):
            chosen = []
            for _ in range(k):
                centers = [*covered, *candidates[chosen]]
                nearest = [min(np.sum((c - center) ** 2) for center in centers) for c in candidates]
                chosen.append(int(np.argmax(nearest)))
            picks.append(chosen)
        name = f"other{number}"
        cases[name] = {"C": classes, "K": k, "pool": pool, "normalized_embeddings": False}
        picked = np.stack([of_class[chosen] for of_class, chosen in zip(points, picks)], axis=1)
        arrays |= {f"{name}/points": points, f"{name}/initial": initial}
        arrays |= {f"{name}/picks": np.array(picks), f"{name}/out": picked.reshape(-1, 3 + number)}
    assert _check(tmp_path, "kcenter", {"config": np.array(json.dumps({"cases": cases})), **arrays}) == 0
    assert "3 passed, 0 failed" in capsys.readouterr().out
