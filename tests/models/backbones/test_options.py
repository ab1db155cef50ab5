"""Options of backbones as text."""

from __future__ import annotations

import pytest

from ccp_dml.models.backbones import registry


def test_options_are_read_from_text():
    options = registry.check_options("cifar_resnet", "stages=2, input_injection=true,decimation=avg")
    assert options["stages"] == 2
    assert options["input_injection"] is True
    assert options["decimation"] == "avg"
    assert options["blocks"] == 2
    model = registry.build("cifar_resnet", image_size=32, options="stages=2,blocks=1")
    assert model.output_shape == (None, 16, 16, 128)


@pytest.mark.parametrize(
    "text, message",
    [
        ("stages", "'stages' is no option; expected name=value"),
        ("depth=3", "'depth=3' is no option; expected name=value with one of stages, blocks"),
        ("stages=two", "stages=two: expected an integer, at least 1"),
        ("stages=0", "stages=0: expected an integer, at least 1"),
        ("stages=1,stages=2", "stages is given twice"),
        ("input_injection=maybe", "expected true or false"),
        ("decimation=max", "expected one of skip, avg, conv"),
        ("mid_activation=bn_tanh", "expected none, or bn, ln"),
    ],
)
def test_invalid_options_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        registry.check("cifar_resnet", options=text)


def test_a_backbone_without_options_takes_none():
    with pytest.raises(ValueError, match="'resnet50' has no options"):
        registry.check_options("resnet50", "stages=2")
