"""Optimizers by name, and groups of variables with their own learning-rate multipliers."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Union

import tensorflow as tf

from ccp_dml.distributed.tables import table_of
from ccp_dml.training.gradients import Gradients
from ccp_dml.training.options import OPTIMIZERS_WITH_MOMENTS, OPTIMIZERS_WITH_MOMENTUM, OptimizerOptions

Optimizer = Union[tf.keras.optimizers.Optimizer, tf.keras.optimizers.legacy.Optimizer]  # noqa: UP007

_KERAS = "tensorflow.keras.optimizers"
# The classes of TensorFlow 2.8, with which the original ran. They update with fused kernels (twice as fast on
# a CPU), and Adam rounds 1 - beta_2 as in the original, which decides the last digits of a training run.
_KERAS_FUSED = "tensorflow.keras.optimizers.legacy"
_ADDONS = "tensorflow_addons.optimizers"

OPTIMIZERS: dict[str, str] = {
    "adadelta": f"{_KERAS_FUSED}:Adadelta",
    "adafactor": f"{_KERAS}:Adafactor",
    "adagrad": f"{_KERAS_FUSED}:Adagrad",
    "adam": f"{_KERAS_FUSED}:Adam",
    "adamax": f"{_KERAS_FUSED}:Adamax",
    "adamw": f"{_KERAS}:AdamW",
    "ftrl": f"{_KERAS_FUSED}:Ftrl",
    "lamb": f"{_ADDONS}:LAMB",
    "lion": f"{_KERAS}:Lion",
    "nadam": f"{_KERAS_FUSED}:Nadam",
    "radam": f"{_ADDONS}:RectifiedAdam",
    "rmsprop": f"{_KERAS_FUSED}:RMSprop",
    "sgd": f"{_KERAS_FUSED}:SGD",
}


def make_optimizer(name: str, learning_rate: float, **options: Any) -> Optimizer:
    """Creates an optimizer of Keras, or LAMB or Rectified Adam of TensorFlow Addons.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: initial learning rate, positive.
        **options: further arguments of the optimizer, such as `momentum` of `sgd` or `beta_2` of `adam`.

    Returns:
        A Keras optimizer without slots; `OptimizerGroups` builds them.

    Raises:
        ValueError: if the name, the rate or an option is not valid.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}; expected one of {', '.join(OPTIMIZERS)}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}; expected a positive number")
    module, kind = OPTIMIZERS[name].split(":")
    if module == _KERAS:
        # The updates are part of the graph of the step: compiling each one separately only adds launches.
        options.setdefault("jit_compile", False)
    try:
        return _load(module, kind)(learning_rate=learning_rate, **options)
    except TypeError as error:
        raise ValueError(f"The optimizer {name!r} cannot be made with {sorted(options)}: {error}") from error


class VariableGroup(NamedTuple):
    """Variables that share an optimizer.

    Attributes:
        variables: the variables, which belong to no other group.
        multiplier: factor on the learning rate, non-negative.
    """

    variables: Sequence[tf.Variable]
    multiplier: float = 1.0


class OptimizerGroups(tf.Module):
    """Applies gradients by groups of variables, matched by identity.

    The step size of group i is `learning_rate * multiplier_i`. Each group has an optimizer, whose variables
    all exist from the start and are checkpointed. A group without any gradient, such as a frozen backbone, is
    not touched: neither its moments nor its step count.

    A sharded variable (`distributed.tables`) needs a group without other variables; its moments are sharded
    in the same way. Its optimizer has to update each component independently, which LAMB and Adafactor do
    not.

    It has the attributes `lr` and `iterations` that Keras callbacks look for in `model.optimizer`.

    Attributes:
        learning_rate: float32 variable, the rate that the multipliers scale.
        optimizers: the optimizer of each group.
    """

    def __init__(
        self, make: Callable[[float], Optimizer], groups: Sequence[VariableGroup], learning_rate: float
    ) -> None:
        """Creates the optimizers and their slots.

        Args:
            make: creates an optimizer from a learning rate, such as
                `functools.partial(make_optimizer, "adam")`.
            groups: the groups; empty ones are ignored.
            learning_rate: initial base rate, positive.

        Raises:
            ValueError: if there is no variable, a variable is in two groups, a multiplier is negative, or a
                sharded variable shares a group.
        """
        super().__init__(name="optimizer_groups")
        groups = [group for group in groups if len(group.variables)]
        if not groups:
            raise ValueError("There are no variables to optimize.")
        self._multipliers = tuple(float(group.multiplier) for group in groups)
        if min(self._multipliers) < 0:
            raise ValueError(f"multiplier is {min(self._multipliers)}; expected a non-negative number")
        group_of: dict[object, int] = {}
        for index, group in enumerate(groups):
            for variable in group.variables:
                if group_of.setdefault(variable.ref(), index) != index:
                    raise ValueError(f"The variable {variable.name} is in two groups of the optimizer.")
        # A module would try to checkpoint a plain dictionary.
        self._group_of = MappingProxyType(group_of)
        self.learning_rate = tf.Variable(
            learning_rate, trainable=False, dtype=tf.float32, name="learning_rate"
        )
        self.optimizers = [make(learning_rate) for _ in groups]
        for optimizer, group in zip(self.optimizers, groups):
            _build(optimizer, list(group.variables))
            _shard_moments(optimizer, group.variables)

    @property
    def lr(self) -> tf.Variable:
        """The base learning rate."""
        return self.learning_rate

    @property
    def iterations(self) -> tf.Variable:
        """Number of updates of the group with the most updates: scalar int64."""
        counts = [optimizer.iterations for optimizer in self.optimizers]
        return max(counts, key=lambda count: int(count.numpy()))

    def apply(self, gradients: Gradients, variables: Sequence[tf.Variable], scale: float = 1.0) -> None:
        """Updates the variables; tensor code that may be traced, outside of replica context.

        Args:
            gradients: a gradient or None for each variable; with several replicas that of the global batch,
                which each replica has.
            variables: variables of the groups, in any order; some may be missing.
            scale: a further factor on the learning rate.

        Raises:
            ValueError: if a variable with a gradient is in no group, or all gradients are None.
        """
        gradients_of: list[list[tf.Tensor]] = [[] for _ in self.optimizers]
        variables_of: list[list[tf.Variable]] = [[] for _ in self.optimizers]
        for gradient, variable in zip(gradients, variables):
            if gradient is None:
                continue
            if variable.ref() not in self._group_of:
                raise ValueError(f"The variable {variable.name} is in no group of the optimizer.")
            index = self._group_of[variable.ref()]
            gradients_of[index].append(gradient)
            variables_of[index].append(variable)
        if not any(variables_of):
            raise ValueError("No variable has a gradient: the loss does not depend on any of them.")
        for optimizer, multiplier, members in zip(self.optimizers, self._multipliers, variables_of):
            if members:
                optimizer.learning_rate.assign(self.learning_rate * (multiplier * scale))

        def update(gradients_of: list[list[tf.Tensor]]) -> None:
            for optimizer, slopes, members in zip(self.optimizers, gradients_of, variables_of):
                if members:
                    pairs = list(zip(slopes, members))
                    optimizer.apply_gradients(pairs, experimental_aggregate_gradients=False)

        tf.distribute.get_strategy().run(update, args=(gradients_of,))


def make_optimizer_groups(
    options: OptimizerOptions, backbone: Sequence[tf.Variable], model: tf.keras.Model, loss: Any
) -> OptimizerGroups:
    """Creates the optimizer of a model and its loss, in groups: backbone, head, and proxies.

    Args:
        options: the options.
        backbone: the variables of the backbone; while a warm-up freezes them, their optimizer counts no
            steps.
        model: the embedding model.
        loss: the loss; `loss.proxies` are its proxies, with their multiplier, or None.
    """
    chosen: dict[str, Any] = {}
    if options.optimizer in OPTIMIZERS_WITH_MOMENTUM:
        chosen["momentum"] = options.momentum
    if options.optimizer in OPTIMIZERS_WITH_MOMENTS:
        chosen |= {"beta_1": options.beta_1, "beta_2": options.beta_2}
    proxies = [] if loss.proxies is None else list(loss.proxies.trainable_variables)
    multiplier = 1.0 if loss.proxies is None else loss.proxies.learning_rate_multiplier
    grouped = {variable.ref() for variable in (*proxies, *backbone)}
    others = [
        variable
        for variable in (*model.trainable_variables, *loss.trainable_variables)
        if variable.ref() not in grouped
    ]
    groups = [
        VariableGroup(backbone, options.backbone_learning_rate_multiplier),
        VariableGroup(others),
        VariableGroup(proxies, multiplier),
    ]
    make = functools.partial(make_optimizer, options.optimizer, **chosen)
    return OptimizerGroups(make, groups, options.learning_rate)


@contextlib.contextmanager
def optimizer_of(model: tf.keras.Model, optimizer: OptimizerGroups) -> Iterator[None]:
    """Shows the optimizer to Keras callbacks as `model.optimizer`; the model does not track it."""
    previous = getattr(model, "optimizer", None)
    object.__setattr__(model, "optimizer", optimizer)
    try:
        yield
    finally:
        object.__setattr__(model, "optimizer", previous)


def _load(module: str, kind: str) -> Any:
    if module != _ADDONS:
        return getattr(tf.keras.optimizers.legacy if module == _KERAS_FUSED else tf.keras.optimizers, kind)
    # On import, the package announces its end of life, and that it is not tested with this TensorFlow.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons.optimizers as addons
    return getattr(addons, kind)


def _build(optimizer: Optimizer, variables: list[tf.Variable]) -> None:
    # Slots have to exist before a checkpoint is restored and before the step is traced.
    if isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
        optimizer.iterations  # noqa: B018 - the count is created on first access
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def _shard_moments(optimizer: Optimizer, variables: Sequence[tf.Variable]) -> None:
    """Lets checkpoints hold all moments of a sharded variable."""
    for variable in variables:
        table = table_of(variable)
        if table is None:
            continue
        if len(variables) > 1:
            raise ValueError(
                f"The variable {variable.name} is sharded and shares a group with others; expected a group "
                "without other variables"
            )
        table.register(optimizer.variables())
