"""Values of the AccuracyCalculator of pytorch-metric-learning on random problems.

    python -m tests.evaluation.accuracy_calculator

writes the values again, in an environment with NumPy, PyTorch and pytorch-metric-learning 2.9.0. The tests
compare the metrics of this library on the same problems and need none of these.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
# Our names and theirs of metrics that both define in the same way.
NAMES = {
    "precision_at_1": "precision_at_1",
    "r_precision": "r_precision",
    "map_at_r": "mean_average_precision_at_r",
}
NUM_PROBLEMS = 24


def problem(seed: int) -> dict[str, np.ndarray]:
    """Arguments of `evaluate_retrieval`: float32 embeddings without ties, classes of 1 to 12 images.

    Odd seeds have a gallery that lacks some classes of the queries. Their calculator recognises the query by
    its rank, so no image has a copy.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    classes, dimension = int(generator.integers(3, 20)), int(generator.integers(1, 9))
    labels = np.repeat(np.arange(classes), generator.integers(1, 13, classes))
    labels = generator.permutation(labels)
    centers = generator.normal(size=(classes, dimension))
    embeddings = (centers[labels] + generator.normal(size=(len(labels), dimension))).astype(np.float32)
    if seed % 2 == 0:
        return {"queries": embeddings, "query_labels": labels}
    size = max(1, len(labels) // 3)
    return {
        "queries": embeddings[:size],
        "query_labels": labels[:size],
        "gallery": embeddings[size:],
        "gallery_labels": labels[size:],
    }


def calculated(seed: int) -> dict[str, float]:
    """Values of the AccuracyCalculator on a problem; needs PyTorch and pytorch-metric-learning."""
    import torch
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    arrays = {name: torch.from_numpy(array) for name, array in problem(seed).items()}
    calculator = AccuracyCalculator(
        include=tuple(NAMES.values()),
        device=torch.device("cpu"),
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False)),
    )
    gallery = [arrays[name] for name in ("gallery", "gallery_labels") if name in arrays]
    found = calculator.get_accuracy(arrays["queries"], arrays["query_labels"], *gallery)
    return {ours: float(found[theirs]) for ours, theirs in NAMES.items()}


def main() -> None:
    values = [calculated(seed) for seed in range(NUM_PROBLEMS)]
    FILE.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
