"""The table of backbones, and its description in docs/backbones.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccp_dml.models.backbones import registry

DOCUMENT = Path(__file__).parents[3] / "docs" / "backbones.md"


def rows() -> dict[str, list[str]]:
    table = DOCUMENT.read_text(encoding="utf-8").split("\n\n")[2]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return {name.strip("`"): rest for name, *rest in cells}


def test_specs_are_consistent():
    for name, spec in registry.BACKBONES.items():
        assert spec.default_weights in spec.weights
        assert spec.min_image_size <= spec.default_image_size
        registry.check(name, "random")


def test_every_backbone_is_there_with_its_size_and_weights():
    assert list(rows()) == list(registry.BACKBONES)
    for name, (side, _, _, weights, file) in rows().items():
        spec = registry.BACKBONES[name]
        assert int(side) == spec.default_image_size
        assert weights == ", ".join(f"`{value}`" for value in (*spec.weights, *spec.file_endings))
        assert file.strip("`") == ("" if spec.imagenet is None else spec.imagenet.file)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.BACKBONES)
def test_the_number_of_parameters(name):
    assert rows()[name][2] == f"{registry.build(name, 'random').count_params():,}"
