"""Losses by name: the table, paths of wrappers, and the options that each loss of a path takes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ccp_dml import geometry
from ccp_dml.kinds import Choice
from ccp_dml.losses import options as loss_options
from ccp_dml.losses import registry
from ccp_dml.losses.pair_loss import PairLoss
from tests.losses.cases import arguments_of

_SPECS = {**registry.LOSSES, **registry.WRAPPERS}
_SIZES = {"num_classes": 3, "embedding_size": 4}


@pytest.mark.parametrize("name", _SPECS)
def test_parameters_are_the_arguments_of_the_class(name: str) -> None:
    module, attribute = _SPECS[name].target.split(":")
    kind = getattr(importlib.import_module(module), attribute)
    given_otherwise = {
        "name",
        "base",
        "num_classes",
        "embedding_size",
        "seed",
        "shared_proxies",
        "shard_proxies",
    }
    if name == "xbm":
        given_otherwise.add("pair_normalization")  # In Python only.
    parameters = [parameter.name for parameter in _SPECS[name].parameters]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == arguments_of(kind) - given_otherwise
    if issubclass(kind, PairLoss):
        assert _SPECS[name].pair_based == kind.pair_based


def _choices() -> list[tuple[str, str, tuple[str, ...]]]:
    """(Loss path, parameter, declared names) of every parameter that is a choice."""
    found = []
    for name, spec in _SPECS.items():
        for parameter in spec.parameters:
            if isinstance(parameter.kind, Choice):
                path = name if name in registry.LOSSES else f"{name}/contrastive"
                found.append((path, parameter.name, parameter.kind.names))
    return found


@pytest.mark.parametrize(("path", "parameter", "names"), _choices())
def test_declared_choices_are_those_that_the_loss_accepts(
    path: str, parameter: str, names: tuple[str, ...]
) -> None:
    problems = []
    for value in names:
        try:
            registry.build(path, **_SIZES, options={parameter: value})
        except ValueError as error:
            problems.append(str(error))
    # A formula may be defined for one of the distances only, or without a miner.
    assert all("it is defined for" in problem or "takes no miner" in problem for problem in problems)
    assert len(problems) < len(names) or parameter == "miner"
    with pytest.raises(ValueError, match=rf"{parameter}.*expected.* {', '.join(names)}$"):
        registry.build(path, **_SIZES, options={parameter: "unheard-of"})


def test_declared_names_are_those_of_geometry() -> None:
    assert loss_options.NORMALIZATIONS == geometry.NORMALIZATIONS
    assert loss_options.DISTANCES == geometry.DISTANCES


def test_registry_does_not_import_tensorflow() -> None:
    code = (
        "import sys; from ccp_dml.losses import registry; registry.parse('ccp/contrastive'); "
        "registry.parameters('triplet'); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_class_is_an_attribute_of_the_package() -> None:
    import ccp_dml.losses as package

    assert package.MultiSimilarity.__name__ == "MultiSimilarity"
    for spec in _SPECS.values():
        name = spec.target.split(":")[1]
        assert getattr(package, name).__name__ == name
        assert name in dir(package)
    with pytest.raises(AttributeError, match="NoSuchLoss"):
        _ = package.NoSuchLoss


def test_a_path_is_split_outer_first() -> None:
    assert registry.parse("ccp/contrastive") == ("ccp", "contrastive")
    assert registry.parse("triplet") == ("triplet",)


@pytest.mark.parametrize(
    "path", ["", "contrast", "ccp", "contrastive/ccp", "xyz/contrastive", "ccp/", "/triplet"]
)
def test_an_unknown_name_is_answered_with_all_names(path: str) -> None:
    with pytest.raises(ValueError, match=r"contrastive, original_contrastive.*ccp"):
        registry.parse(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("ccp/proxy_nca", "pair-based losses only"), ("ccp/ccp/contrastive", "expected each wrapper once")],
)
def test_invalid_combinations_are_explained(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        registry.parse(path)


def test_a_path_takes_the_parameters_of_all_its_losses() -> None:
    taken = registry.parameters("ccp/contrastive")
    assert {"positive_margin", "negative_margin", "pair_weight", "proxy_weight", "proxies_per_class"} <= taken
    assert "margin" not in taken
    assert "pair_weight" not in registry.parameters("contrastive")


def test_build_gives_each_option_to_the_loss_that_takes_it() -> None:
    options = {"positive_margin": 0.1, "pair_weight": 0.3, "proxies_per_class": 2, "normalization": "unit"}
    loss = registry.build("ccp/contrastive", **_SIZES, options=options)
    assert (loss.pair_weight, loss.proxies_per_class) == (0.3, 2)
    assert (loss.base.positive_margin, loss.base.options.normalization) == (0.1, "unit")
    assert loss.base.proxies is None
    assert loss.proxies.embeddings.shape == [6, 4]


def test_an_option_without_effect_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no option margin;"):
        registry.build("contrastive", **_SIZES, options={"margin": 0.5})


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("contrastive", {"distance": "l2"}, "distance=l2: expected one of euclidean"),
        ("contrastive", {"normalization": "l2"}, "normalization=l2: expected one of lipschitz"),
        ("contrastive", {"average": "mean"}, "average=mean: expected one of active, all"),
        ("contrastive", {"miner": "soft"}, "miner=soft: expected one of hard_negatives"),
        ("original_contrastive", {"distance": "euclidean"}, "for 'cosine' only"),
        ("multi_similarity", {"proxy_anchor": True}, "for False only"),
        ("proxy_anchor", {"proxies_per_class": 0}, "at least 1"),
        ("contrastive", {"proxies_per_class": 2, "references_per_batch": 4}, "references_per_batch is 4"),
        ("triplet", {"triplets": "easy"}, "triplets is 'easy'"),
        ("triplet", {"triplets": "semi_hard", "margin": 0.0}, r"margin is 0\.0"),
        ("proxy_nca", {"temperature": 0.0}, "temperature is 0.0"),
        ("ccp/contrastive", {"pair_normalization": "l2"}, "normalization is 'l2'"),
    ],
)
def test_invalid_options_are_named(path: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.build(path, **_SIZES, options=options)


def test_proxies_need_sizes() -> None:
    from ccp_dml.losses.contrastive import Contrastive

    with pytest.raises(ValueError, match="num_classes is None"):
        Contrastive(proxies_per_class=2)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("xbm/contrastive", "CrossBatchMemory"),
        ("mdr/soft_triple", "DistanceRegularization"),
        ("ps/proxy_anchor", "ProxySynthesis"),
        ("virtual_softmax/proxy_nca", "VirtualSoftmax"),
    ],
)
def test_wrappers_are_built_around_their_losses(path: str, kind: str) -> None:
    loss = registry.build(path, **_SIZES, seed=5)
    assert type(loss).__name__ == kind
    assert loss.base.seed == 5
    assert loss.proxies is loss.base.proxies


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("xbm/proxy_nca", "xbm wraps pair-based losses only"),
        ("ps/contrastive", r"ps directly wraps these only: proxy_nca, proxy_anchor"),
        ("virtual_softmax/proxy_anchor", r"directly wraps these only: proxy_nca"),
    ],
)
def test_wrappers_refuse_other_losses(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        registry.parse(path)


def test_wrappers_hide_options_of_the_loss_inside() -> None:
    assert "proxies_per_class" not in registry.parameters("xbm/contrastive")
    assert {"proxies_per_class", "mixing_rate"} <= registry.parameters("ps/proxy_nca")
    assert "proxy_pairs" not in registry.parameters("virtual_softmax/proxy_nca")


@pytest.mark.parametrize("name", _SPECS)
def test_documentation_names_each_loss_and_its_parameters(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    shared, *sections = text.split("\n### ")
    [section] = [section for section in sections if section.split()[0] == name]
    for parameter in _SPECS[name].parameters:
        assert f"`{parameter.name}`" in section + shared, parameter.name
