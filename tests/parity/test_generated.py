"""The checker passes on files of the golden format with other seeds, shapes and hyper-parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity import check
from tests.parity.generated import Recorder, add_loss, add_memory, add_regularized, add_synthesis

_L2, _COS = {"distance": "l2"}, {"distance": "cos"}
_C2 = {"loss": "contrastive", "pos_margin": 0.13, "neg_margin": 1.07, **_L2}
_C1 = {"loss": "original_contrastive", "margin": 0.21, **_COS}
_TRIPLET = {"loss": "triplet", "margin": 0.17, "triplets_from_mat": True, **_L2}
_MS = {"loss": "multi_similarity", "alpha_margin": 3.0, "beta_margin": 17.0, "lambda_margin": 0.4, **_COS}
_NCA = {"loss": "proxy_nca", "delta_margin": 0.05, "lambda_softmax": 0.19, "proxy_lrm": 7.0, **_COS}
_ANCHOR = {"loss": "proxy_anchor", "alpha_scale": 11.0, "delta_margin": 0.07, "proxy_anchor": True, **_COS}
_SOFT = {"loss": "soft_triple", "lambda_softmax": 9.0, "gamma_entropy": 0.23, "tau_reg": 0.3, **_COS}
_MARGIN = {
    "loss": "margin",
    "alpha_margin": 0.15,
    "beta_class": 0.8,
    "beta_regularization_coeff_nu": 0.03,
    **_L2,
}
_XENT = {"loss": "xent", "classes_per_batch": 3, "lambda_softmax": 0.31, "proxy_anchor": True, **_COS}
_CCP = {"pair_loss_weight": 0.23, "ccp_weight": 0.9}

# Configuration, batch size, dimension, number of classes, proxies per class.
_LOSSES: dict[str, list[tuple[dict[str, Any], int, int, int, int]]] = {
    "loss_contrastive": [
        (_C2, 9, 5, 4, 0),
        ({**_C2, "use_intra_proxy_pairs": True, "loss_weight": 0.5}, 6, 3, 5, 2),
        ({**_C2, "miner": "hardNegatives", "squared_distance": True, "avg_nonzero_only": False}, 8, 3, 3, 0),
    ],
    "loss_original_contrastive": [(_C1, 7, 2, 3, 0), ({**_C1, "proxy_anchor": True}, 5, 4, 4, 3)],
    "loss_triplet": [
        (_TRIPLET, 9, 4, 3, 0),
        ({**_TRIPLET, "triplets_from_mat": False, "lipschitz_cont": False}, 8, 3, 2, 0),
    ],
    "loss_multi_similarity": [(_MS, 8, 4, 5, 0), (_MS, 5, 3, 3, 2)],
    "loss_proxy": [
        (_NCA, 6, 4, 5, 2),
        (_ANCHOR, 7, 3, 4, 1),
        ({**_SOFT, "delta_margin": 0.02, "proxy_anchor": True}, 6, 4, 3, 3),
    ],
    "loss_margin_xent": [(_XENT, 9, 5, 3, 0), ({**_MARGIN, "per_class_beta": True}, 8, 3, 4, 0)],
    "loss_ccp": [
        ({**_C2, **_CCP, "lipschitz_cont": False, "miner": "hardNegatives"}, 7, 3, 4, 2),
        ({**_TRIPLET, **_CCP, "loss_weight": 0.5}, 6, 4, 3, 3),
    ],
}


def _check(recorder: Recorder, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder.write(folder)
    status = check.main([str(folder)])
    printed = capsys.readouterr().out
    assert status == 0, printed
    assert f"{len(recorder.cases)} passed, 0 failed, 0 deviate, 0 not ported" in printed


@pytest.mark.parametrize("kind", _LOSSES)
def test_losses(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(kind, seed=len(kind))
    for config, *sizes in _LOSSES[kind]:
        add_loss(recorder, config, *sizes)
    _check(recorder, tmp_path, capsys)


def test_cross_batch_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder("wrap_xbm", seed=3)
    weights = {"xbm_weight": 0.6, "pair_loss_weight": 0.35, "loss_weight": 1.0}
    add_memory(recorder, {**_C1, **weights, "batches_in_mem": 2, "start_at": 1}, 5, 3, 4)
    add_memory(recorder, {**_MS, **weights, "batches_in_mem": 1, "start_at": 0}, 4, 2, 3)
    _check(recorder, tmp_path, capsys)


def test_distance_regularization(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder("wrap_mdr", seed=4)
    weights = {"mdr_weight": 0.7, "nu_level_reg": 0.05, "momentum": 0.8}
    add_regularized(recorder, {**_C2, **weights}, 7, 3, 4)
    add_regularized(recorder, {**_TRIPLET, **weights}, 5, 5, 2)
    _check(recorder, tmp_path, capsys)


def test_proxy_synthesis_and_virtual_softmax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder("wrap_ps_virtual", seed=5)
    add_synthesis(recorder, {**_NCA, "mixing_rate": 0.37, "ps_alpha": 0.3, "ps_mu": 1.0}, 4, 5, 6)
    add_synthesis(
        recorder,
        {**_NCA, "mixing_rate": 0.6, "ps_alpha": 1.0, "ps_mu": 0.5, "lipschitz_cont": False},
        3,
        4,
        3,
    )
    add_synthesis(recorder, _NCA, 3, 3, 5)
    _check(recorder, tmp_path, capsys)


def _resized_axis(image: np.ndarray, axis: int, new: int) -> np.ndarray:
    """Bilinear interpolation with half-pixel centers along an axis, in float32."""
    old = image.shape[axis]
    place = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    low = np.floor(place)
    first, second = (np.clip(rounded.astype(int), 0, old - 1) for rounded in (low, np.ceil(place)))
    weight = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
    return image.take(first, axis) * (1 - weight) + image.take(second, axis) * weight


@pytest.mark.parametrize("out", [(30, 24), (24, 30), (44, 20)])
def test_preprocessing_to_different_height_and_width(
    out: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "short_axis_initial_resize": 32,
        "out_image_size": out,
        "image_scaler": 255.0,
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.2],
        "reverse_channels": True,
    }
    cases, arrays = {}, {}
    for number, shape in enumerate([(40, 56), (61, 33), (32, 32), (20, 45)]):
        image = np.random.default_rng(number).integers(0, 256, (*shape, 3)).astype(np.uint8)
        height, width = (int(side * np.float32(32) / min(shape)) for side in shape)
        resized = _resized_axis(_resized_axis(image.astype(np.float32), 1, width), 0, height) / 255
        result = np.zeros((*out, 3), np.float32)
        kept = [min(old, new) for old, new in zip((height, width), out)]
        source = [(old - side) // 2 for old, side in zip((height, width), kept)]
        target = [(new - side) // 2 for new, side in zip(out, kept)]
        result[target[0] :, target[1] :][: kept[0], : kept[1]] = resized[source[0] :, source[1] :][
            : kept[0], : kept[1]
        ]
        cases[f"g{number}"] = {**config, "resized_shape": [height, width, 3]}
        scaled = (255 * (result - np.array(config["mean"])))[..., ::-1].astype(np.float32)
        arrays |= {f"g{number}/image": image, f"g{number}/resized": resized, f"g{number}/out": scaled}
    text = json.dumps({"note": "made by loops", "cases": cases})
    np.savez(tmp_path / "preprocess.npz", config=np.array(text), **arrays)
    assert check.main([str(tmp_path)]) == 0, capsys.readouterr().out


def test_a_wrong_gradient_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder("loss_proxy", seed=6)
    add_loss(recorder, _NCA, 6, 4, 5, 2)
    [name] = [name for name in recorder.arrays if name.endswith("grad_proxies")]
    recorder.arrays[name] = recorder.arrays[name] * np.float32(1.01)
    recorder.write(tmp_path)
    assert check.main([str(tmp_path)]) == 1
    assert "grad_proxies" in capsys.readouterr().out
