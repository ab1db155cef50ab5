"""The vision transformers, and the names of their published weights. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[np.float32]]


class VitVariant(NamedTuple):
    """The dimensions of a vision transformer.

    Attributes:
        width: channels D of a token.
        heads: attention heads of a block.
        patch: side of a patch in pixels.
        grid: patches along a side of the images that it was trained on, as of its position embeddings.
        depth: number of blocks.
        layer_scale: True for a factor on each channel of both branches of a block (DINOv2).
        clip: True for the image tower of CLIP: a normalisation before the first block, no bias of the
            patches, the quick GELU, and a projection of the class token.
        projected: channels after that projection.
    """

    width: int
    heads: int
    patch: int
    grid: int
    depth: int = 12
    layer_scale: bool = False
    clip: bool = False
    projected: int = 512


VARIANTS = {
    "vit_small_16": VitVariant(384, 6, 16, 14),
    "vit_base_16": VitVariant(768, 12, 16, 14),
    "vit_small_14": VitVariant(384, 6, 14, 37, layer_scale=True),
    "vit_base_14": VitVariant(768, 12, 14, 37, layer_scale=True),
    "clip_vit_base_16": VitVariant(768, 12, 16, 14, clip=True),
}
_TOKENS = {"cls_token": "tokens/class_token", "pos_embed": "tokens/position_embedding"}
_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "qkv",
    "attn.proj": "attention_output",
    "norm2": "norm2",
    "mlp.fc1": "mlp1",
    "mlp.fc2": "mlp2",
}
# OpenAI's names of CLIP, which open_clip uses too, and those of the file with vision_model.
_OPENAI = {
    "visual.conv1.": "patch_embed.proj.",
    "visual.ln_pre.": "norm_pre.",
    "visual.ln_post.": "norm.",
    "visual.transformer.resblocks.": "blocks.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".attn.in_proj_": ".attn.qkv.",
    ".attn.out_proj.": ".attn.proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}
_TRANSFORMERS = {
    "vision_model.embeddings.patch_embedding.": "patch_embed.proj.",
    "vision_model.pre_layrnorm.": "norm_pre.",
    "vision_model.post_layernorm.": "norm.",
    "vision_model.encoder.layers.": "blocks.",
    ".layer_norm1.": ".norm1.",
    ".layer_norm2.": ".norm2.",
    ".self_attn.out_proj.": ".attn.proj.",
}
_MOVED = {
    "visual.class_embedding": "cls_token",
    "visual.positional_embedding": "pos_embed",
    "visual.proj": "proj",
    "vision_model.embeddings.class_embedding": "cls_token",
    "vision_model.embeddings.position_embedding.weight": "pos_embed",
    "visual_projection.weight": "proj",
}
# Parts that take no part in the embedding of an image.
_UNUSED = ("mask_token", "head.")


def convert_vit(name: str, state: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Renames and transposes the arrays of a PyTorch state dict.

    Takes the names of DINO, DINOv2 and timm, and for CLIP also those of OpenAI and of Hugging Face, of which
    only the image tower is read.

    Args:
        name: a name of `VARIANTS`.
        state: arrays by name in PyTorch.

    Returns:
        float32 arrays by `<layer>/<weight>`; the kernel of the patches is [p, p, 3, D], others are
        [input, output].

    Raises:
        ValueError: if an array is missing or unknown, or has another shape.
    """
    variant = VARIANTS[name]
    state = _with_common_names(state) if variant.clip else state
    arrays: Arrays = {}
    unknown = []
    for key, array in state.items():
        if key.startswith(_UNUSED):
            continue
        target = _target(key)
        if target is None:
            unknown.append(key)
            continue
        if target == "patches/kernel":
            array = array.transpose(2, 3, 1, 0)
        elif target.endswith("/kernel") and key != "proj":
            array = array.T
        arrays[target] = np.ascontiguousarray(array, np.float32)
    shapes = dict(_shapes(variant))
    problems = [f"{key} is unknown" for key in unknown]
    problems += [f"{key} is missing" for key in shapes.keys() - arrays.keys()]
    problems += [
        f"{key} has the shape {array.shape}, expected {shapes.get(key)}"
        for key, array in arrays.items()
        if array.shape != shapes.get(key)
    ]
    if problems:
        raise ValueError(f"{len(problems)} arrays are not those of {name}: {'; '.join(sorted(problems)[:3])}")
    return arrays


def _with_common_names(state: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Gives the arrays of the image tower of CLIP the names of the other transformers."""
    if "cls_token" in state:  # timm's names, with the projection as a classifier.
        others = {key: array for key, array in state.items() if not key.startswith("head.")}
        return {**others, "proj": state["head.weight"].T} if "head.weight" in state else others
    hugging_face = any(key.startswith("vision_model.") for key in state)
    tower = ("vision_model.", "visual_projection.") if hugging_face else ("visual.",)
    found: dict[str, npt.NDArray[Any]] = {}
    for key, array in state.items():
        if not key.startswith(tower) or key.endswith("position_ids"):
            continue
        for theirs, common in (_TRANSFORMERS if hugging_face else _OPENAI).items():
            key = key.replace(theirs, common)
        found[key] = array
    if hugging_face:
        for key in [key for key in found if ".self_attn.q_proj." in key]:
            parts = [found.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            found[key.replace("self_attn.q_proj", "attn.qkv")] = np.concatenate(parts)
    for theirs, common in _MOVED.items():
        if theirs in found:
            found[common] = found.pop(theirs)
    if hugging_face and "proj" in found:
        found["proj"] = found["proj"].T
    for common in found.keys() & _TOKENS.keys():
        found[common] = found[common].reshape((1,) * (3 - found[common].ndim) + found[common].shape)
    return found


def _target(key: str) -> str | None:
    """The name of an array here; None if it is unknown."""
    if key in _TOKENS:
        return _TOKENS[key]
    if key == "proj":
        return "projection/kernel"
    layer, _, kind = key.rpartition(".")
    if layer == "patch_embed.proj" and kind in ("weight", "bias"):
        return f"patches/{'kernel' if kind == 'weight' else 'bias'}"
    if layer in ("norm", "norm_pre"):
        return f"{layer}/{'gamma' if kind == 'weight' else 'beta'}"
    if not layer.startswith("blocks."):
        return None
    _, number, part = layer.split(".", 2)
    if part in ("ls1", "ls2") and kind == "gamma":
        return f"block{number}_scale{part[-1]}/gamma"
    if part not in _BLOCK or kind not in ("weight", "bias"):
        return None
    names = ("gamma", "beta") if part.startswith("norm") else ("kernel", "bias")
    return f"block{number}_{_BLOCK[part]}/{names[kind == 'bias']}"


def _shapes(variant: VitVariant) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all arrays here."""
    width, hidden = variant.width, 4 * variant.width
    yield "tokens/class_token", (1, 1, width)
    yield "tokens/position_embedding", (1, 1 + variant.grid**2, width)
    yield "patches/kernel", (variant.patch, variant.patch, 3, width)
    if not variant.clip:
        yield "patches/bias", (width,)
    norms = ["norm", *(["norm_pre"] if variant.clip else [])]
    for block in range(variant.depth):
        norms += [f"block{block}_norm1", f"block{block}_norm2"]
        sizes = {"qkv": (width, 3 * width), "attention_output": (width, width)}
        sizes |= {"mlp1": (width, hidden), "mlp2": (hidden, width)}
        for layer, (inputs, outputs) in sizes.items():
            yield f"block{block}_{layer}/kernel", (inputs, outputs)
            yield f"block{block}_{layer}/bias", (outputs,)
        if variant.layer_scale:
            yield f"block{block}_scale1/gamma", (width,)
            yield f"block{block}_scale2/gamma", (width,)
    for norm in norms:
        yield f"{norm}/gamma", (width,)
        yield f"{norm}/beta", (width,)
    if variant.clip:
        yield "projection/kernel", (width, variant.projected)
