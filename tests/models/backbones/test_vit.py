"""Vision transformers against loops in NumPy, and against PyTorch where timm is installed."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import convert, registry
from ccp_dml.models.backbones.vit import apply_variant, cubic_matrix
from ccp_dml.models.backbones.vit_layout import VARIANTS, VitVariant, convert_vit
from ccp_dml.models.backbones.weights import assign_arrays
from ccp_dml.models.embedding_model import build_embedding_model

Array = npt.NDArray[Any]
TINY = {
    "dino": VitVariant(8, 2, 4, 3, depth=2),
    "dinov2": VitVariant(8, 4, 4, 3, depth=2, layer_scale=True),
    "clip": VitVariant(8, 2, 4, 3, depth=2, clip=True, projected=5),
}
# In place of the published dimensions, which take seconds to build.
SMALL = {
    "vit_small_16": VitVariant(16, 2, 16, 14, depth=2),
    "vit_small_14": VitVariant(16, 2, 14, 37, depth=2, layer_scale=True),
    "clip_vit_base_16": VitVariant(16, 2, 16, 14, depth=2, clip=True, projected=4),
}
IN_TIMM = {
    "vit_small_16": "vit_small_patch16_224",
    "vit_base_16": "vit_base_patch16_224",
    "vit_small_14": "vit_small_patch14_dinov2",
    "vit_base_14": "vit_base_patch14_dinov2",
    "clip_vit_base_16": "vit_base_patch16_clip_quickgelu_224",
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the networks small."""
    for name, variant in SMALL.items():
        monkeypatch.setitem(VARIANTS, name, variant)


def network(variant: VitVariant, pooling: str = "cls", sides: tuple[int, int] = (12, 12)) -> tf.keras.Model:
    images = tf.keras.Input((*sides, 3))
    model = tf.keras.Model(images, apply_variant(images, variant, pooling, seed=3))
    generator = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(generator.normal(0.0, 0.5, variable.shape))
    return model


def cubic(line: Array, outputs: int) -> Array:
    """Interpolates along the first axis by the convolution of Keys (1981) with a = -0.75, point by point."""
    a, size = -0.75, len(line)
    result = np.zeros((outputs, *line.shape[1:]))
    for place in range(outputs):
        x = (place + 0.5) * size / outputs - 0.5
        for tap in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(x - tap)
            if d <= 1:
                weight = (a + 2) * d**3 - (a + 3) * d**2 + 1
            else:
                weight = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            result[place] += weight * line[min(max(tap, 0), size - 1)]
    return result


def by_hand(model: tf.keras.Model, variant: VitVariant, pooling: str, image: Array) -> Array:
    """Features [D] of an image, token by token, in float64."""
    w = {variable.name.split(":")[0]: variable.numpy().astype(np.float64) for variable in model.weights}
    erf = np.vectorize(math.erf)

    def norm(x: Array, name: str) -> Array:
        epsilon = 1e-5 if variant.clip else 1e-6
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return scaled * w[f"{name}/gamma"] + w[f"{name}/beta"]

    def dense(x: Array, name: str) -> Array:
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    p, rows, columns = variant.patch, image.shape[0] // variant.patch, image.shape[1] // variant.patch
    table = w["tokens/position_embedding"][0]
    square = table[1:].reshape(variant.grid, variant.grid, -1)
    positions = cubic(cubic(square, rows).transpose(1, 0, 2), columns).transpose(1, 0, 2)
    tokens = [w["tokens/class_token"][0, 0] + table[0]]
    for row in range(rows):
        for column in range(columns):
            patch = image[row * p : (row + 1) * p, column * p : (column + 1) * p]
            token = np.einsum("abc,abcd->d", patch, w["patches/kernel"])
            tokens.append(token + w.get("patches/bias", 0.0) + positions[row, column])
    x = np.stack(tokens)
    if variant.clip:
        x = norm(x, "norm_pre")
    size = variant.width // variant.heads
    for block in range(variant.depth):
        name = f"block{block}"
        qkv = dense(norm(x, f"{name}_norm1"), f"{name}_qkv")
        mixed = np.zeros_like(x)
        for head in range(variant.heads):
            part = slice(head * size, (head + 1) * size)
            q, k, v = (qkv[:, i * variant.width :][:, part] for i in range(3))
            for token in range(len(x)):
                scores = np.exp(q[token] @ k.T / np.sqrt(size))
                mixed[token, part] = scores / scores.sum() @ v
        y = dense(mixed, f"{name}_attention_output")
        x = x + y * w.get(f"{name}_scale1/gamma", 1.0)
        y = dense(norm(x, f"{name}_norm2"), f"{name}_mlp1")
        y = y / (1 + np.exp(-1.702 * y)) if variant.clip else y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + dense(y, f"{name}_mlp2") * w.get(f"{name}_scale2/gamma", 1.0)
    x = norm(x, "norm")
    features = x[0] if pooling == "cls" else x[1:].mean(axis=0)
    return features @ w["projection/kernel"] if variant.clip else features


@pytest.mark.parametrize("sides", [(12, 12), (16, 21), (5, 8)])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", TINY)
def test_features_are_those_of_loops(kind: str, pooling: str, sides: tuple[int, int]) -> None:
    variant = TINY[kind]
    model = network(variant, pooling, sides)
    images = np.random.default_rng(2).normal(size=(2, *sides, 3)).astype(np.float32)
    expected = [by_hand(model, variant, pooling, image) for image in images]
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-4)


def test_any_size_gives_the_features_of_a_fixed_size() -> None:
    images = np.random.default_rng(2).normal(size=(2, 16, 20, 3)).astype(np.float32)
    fixed, free = (network(TINY["dino"], sides=sides) for sides in ((16, 20), (None, None)))
    np.testing.assert_allclose(free(images), fixed(images), rtol=1e-5, atol=1e-6)


def test_the_rows_of_an_interpolation_sum_to_one_and_the_same_size_changes_nothing() -> None:
    for outputs in (1, 3, 5, 14, 30):
        np.testing.assert_allclose(tf.reduce_sum(cubic_matrix(tf.constant(outputs), 5), 1), 1.0, atol=1e-6)
    np.testing.assert_allclose(cubic_matrix(tf.constant(7), 7), np.eye(7), atol=1e-6)


def state_of(name: str) -> dict[str, Array]:
    """A state dict with the names of timm and the shapes of a variant; values tell arrays apart."""
    variant, state = VARIANTS[name], {}
    d, generator = variant.width, np.random.default_rng(0)
    shapes = {"cls_token": (1, 1, d), "pos_embed": (1, 1 + variant.grid**2, d)}
    shapes["patch_embed.proj.weight"] = (d, 3, variant.patch, variant.patch)
    shapes["norm.weight"] = shapes["norm.bias"] = (d,)
    if not variant.clip:
        shapes["patch_embed.proj.bias"] = (d,)
    for block in range(variant.depth):
        for layer, shape in {
            "attn.qkv": (3 * d, d),
            "attn.proj": (d, d),
            "mlp.fc1": (4 * d, d),
            "mlp.fc2": (d, 4 * d),
            "norm1": (d,),
            "norm2": (d,),
        }.items():
            shapes[f"blocks.{block}.{layer}.weight"] = shape
            shapes[f"blocks.{block}.{layer}.bias"] = shape[:1]
        if variant.layer_scale:
            shapes[f"blocks.{block}.ls1.gamma"] = shapes[f"blocks.{block}.ls2.gamma"] = (d,)
    for key, shape in shapes.items():
        state[key] = np.full(shape, generator.normal(), np.float32)
    return state


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["vit_small_16", "vit_small_14"])
def test_a_state_dict_is_converted_and_loaded(name: str, tmp_path: Path) -> None:
    state = state_of(name)
    np.savez(tmp_path / "in.npz", **state, mask_token=np.zeros([1, 16], np.float32))
    arrays = convert_vit(name, convert.read_state(tmp_path / "in.npz"))
    model = registry.build(name, "random", image_size=28)
    assign_arrays(model, arrays, "converted")
    found = {variable.name: variable.numpy() for variable in model.weights}
    np.testing.assert_array_equal(found["block1_qkv/kernel:0"], state["blocks.1.attn.qkv.weight"].T)
    np.testing.assert_array_equal(
        found["patches/kernel:0"], state["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    )


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "change, expected",
    [
        ({"blocks.1.mlp.fc1.weight": None}, "block1_mlp1/kernel is missing"),
        ({"register_tokens": np.zeros([1, 4, 16])}, "register_tokens is unknown"),
        ({"norm.weight": np.zeros([7])}, r"norm/gamma has the shape \(7,\), expected \(16,\)"),
    ],
)
def test_other_state_dicts_are_refused(change: dict[str, Array | None], expected: str) -> None:
    state = {**state_of("vit_small_16"), **change}
    kept = {name: array for name, array in state.items() if array is not None}
    with pytest.raises(ValueError, match=f"1 arrays are not those of vit_small_16: {expected}"):
        convert_vit("vit_small_16", kept)


@pytest.mark.usefixtures("small")
def test_the_names_of_openai_and_hugging_face_are_those_of_one_tower() -> None:
    generator, d = np.random.default_rng(0), 16
    openai: dict[str, Array] = {
        "visual.class_embedding": generator.normal(size=d),
        "visual.positional_embedding": generator.normal(size=(197, d)),
        "visual.conv1.weight": generator.normal(size=(d, 3, 16, 16)),
        "visual.proj": generator.normal(size=(d, 4)),
        "text_projection": np.zeros(3),
    }
    hugging: dict[str, Array] = {
        "vision_model.embeddings.class_embedding": openai["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": openai["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": openai["visual.conv1.weight"],
        "visual_projection.weight": openai["visual.proj"].T,
        "vision_model.embeddings.position_ids": np.arange(197),
        "text_model.final_layer_norm.weight": np.zeros(3),
    }
    layers = {("ln_pre", "pre_layrnorm"): (d,), ("ln_post", "post_layernorm"): (d,)}
    names = {f"visual.{one}": f"vision_model.{two}" for one, two in layers}
    shapes = {f"visual.{one}": shape for (one, _), shape in layers.items()}
    for block in range(2):
        here, there = f"visual.transformer.resblocks.{block}", f"vision_model.encoder.layers.{block}"
        for one, two, shape in (
            ("ln_1", "layer_norm1", (d,)),
            ("ln_2", "layer_norm2", (d,)),
            ("attn.out_proj", "self_attn.out_proj", (d, d)),
            ("mlp.c_fc", "mlp.fc1", (4 * d, d)),
            ("mlp.c_proj", "mlp.fc2", (d, 4 * d)),
        ):
            names[f"{here}.{one}"], shapes[f"{here}.{one}"] = f"{there}.{two}", shape
        for kind, shape in (("weight", (3 * d, d)), ("bias", (3 * d,))):
            openai[f"{here}.attn.in_proj_{kind}"] = generator.normal(size=shape)
            for part, array in zip("qkv", np.split(openai[f"{here}.attn.in_proj_{kind}"], 3)):
                hugging[f"{there}.self_attn.{part}_proj.{kind}"] = array
    for one, two in names.items():
        for kind, shape in (("weight", shapes[one]), ("bias", shapes[one][:1])):
            openai[f"{one}.{kind}"] = hugging[f"{two}.{kind}"] = generator.normal(size=shape)
    first, second = (convert_vit("clip_vit_base_16", state) for state in (openai, hugging))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")
@pytest.mark.parametrize("name", VARIANTS)
def test_features_are_those_of_timm(name: str) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    variant = VARIANTS[name]
    side = variant.patch * variant.grid
    theirs = timm.create_model(
        IN_TIMM[name], num_classes=variant.projected if variant.clip else 0, img_size=side
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.0, 0.05)
    state = {key: tensor.numpy() for key, tensor in theirs.state_dict().items() if key != "head.bias"}
    if variant.clip:
        theirs.head.bias.data.zero_()
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    inputs = tf.keras.Input((side, side, 3))
    model = tf.keras.Model(inputs, apply_variant(inputs, variant, "cls", seed=0))
    assign_arrays(model, convert_vit(name, state), "timm")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("options", [None, "pooling=mean"])
def test_an_embedding_model_trains_exports_and_loads(options: str | None, tmp_path: Path) -> None:
    model = build_embedding_model(
        "vit_small_16", weights="random", embedding_size=8, image_size=32, options=options
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    model.compile(tf.keras.optimizers.SGD(1e-3, jit_compile=False), "mse")
    before = model.get_layer("vit_small_16").get_layer("block0_qkv").kernel.numpy()
    model.fit(images, np.zeros([4, 8], np.float32), epochs=1, verbose=0)
    assert not np.array_equal(model.get_layer("vit_small_16").get_layer("block0_qkv").kernel, before)
    model.save(tmp_path / "model.keras")
    tf.saved_model.save(model, str(tmp_path / "saved"))
    expected = model(images)
    np.testing.assert_allclose(
        tf.keras.models.load_model(tmp_path / "model.keras")(images), expected, atol=1e-6
    )
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    [found] = served(tf.constant(images)).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)
