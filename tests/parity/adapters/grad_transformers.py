"""Gradient transforms, one after the other."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.training.gradient_transforms import ProximalTerm, standard_transforms
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """The gradients after the proximal term, after weight decay and at the end."""
    config, arrays = case.config, case.arrays
    names, stages = config["names"], config["stages"]
    variables = [tf.Variable(arrays[f"var_{i}"]) for i in range(len(names))]
    pulled = [i for i in range(len(names)) if f"prev_{i}" in arrays]
    excluded = [
        variable
        for variable, name in zip(variables, names)
        if any(key in name for key in config["excluded_vars"])
    ]
    transforms = standard_transforms(
        proximal=ProximalTerm(
            [variables[i] for i in pulled],
            [tf.Variable(arrays[f"prev_{i}"]) for i in pulled],
            tf.Variable(config["lam"], dtype=tf.float32),
        )
        if "DistanceRegularizer" in stages
        else None,
        weight_decay=config["weight_decay"] if "WeightRegularizer" in stages else 0.0,
        exclude_from_decay=excluded,
        clip_norm=config["clipnorm"] if "ClipGradients" in stages else None,
        clip_value=config["clipvalue"] if "ClipGradients" in stages else None,
    )
    clips = (config["clipnorm"], config["clipvalue"]) if "ClipGradients" in stages else ()
    gradients = [tf.constant(arrays[f"grad_{i}"]) for i in range(len(names))]
    results = []
    before_clipping = len(transforms) - sum(clip is not None for clip in clips)
    for stage, transform in enumerate(transforms):
        gradients = transform(gradients, variables)
        if stage < before_clipping and f"stage{stage}_0" in arrays:
            results += _comparisons(f"stage{stage}", gradients, arrays)
    return results + _comparisons("out", gradients, arrays)


def _comparisons(prefix: str, gradients: list[tf.Tensor], arrays: dict) -> list[Comparison]:
    return [
        Comparison(f"{prefix}_{i}", gradient.numpy(), arrays[f"{prefix}_{i}"], rtol=1e-4, atol=1e-6)
        for i, gradient in enumerate(gradients)
    ]
