"""Gradient transforms, one after the other."""

from __future__ import annotations

import tensorflow as tf

from ccp_dml.training.gradients import GradientTransform, ProximalTerm, make_transforms
from ccp_dml.training.options import GradientOptions
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares the gradients after each stage; those of the last are recorded as `out`."""
    stages = case.config["stages"]
    variables = [tf.Variable(case.arrays[f"var_{i}"]) for i in range(len(case.config["names"]))]
    results = []
    for number in range(1, len(stages) + 1):
        gradients = [tf.constant(case.arrays[f"grad_{i}"]) for i in range(len(variables))]
        for transform in _transforms(case, variables, stages[:number]):
            gradients = transform(gradients, variables)
        name = "out" if number == len(stages) else f"stage{number - 1}"
        results += [
            Comparison(f"{name}_{i}", gradient.numpy(), case.arrays[f"{name}_{i}"], rtol=1e-4, atol=1e-6)
            for i, gradient in enumerate(gradients)
        ]
    return results


def _transforms(case: Case, variables: list[tf.Variable], stages: list[str]) -> list[GradientTransform]:
    config, arrays = case.config, case.arrays
    pulled = [i for i in range(len(variables)) if f"prev_{i}" in arrays]
    excluded = [
        variable
        for variable, name in zip(variables, config["names"])
        if any(key in name for key in config["excluded_vars"])
    ]
    proximal = ProximalTerm(
        [variables[i] for i in pulled],
        [tf.Variable(arrays[f"prev_{i}"]) for i in pulled],
        tf.Variable(config["lam"], dtype=tf.float32),
    )
    clips = "ClipGradients" in stages
    options = GradientOptions(
        weight_decay=config["weight_decay"] if "WeightRegularizer" in stages else 0.0,
        clip_norm=config["clipnorm"] or 0.0 if clips else 0.0,
        clip_value=config["clipvalue"] or 0.0 if clips else 0.0,
    )
    return make_transforms(
        options,
        variables,
        proximal=proximal if "DistanceRegularizer" in stages else None,
        exclude_from_decay=excluded,
    )
