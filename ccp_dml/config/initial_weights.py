"""Where the trained weights are that a run starts from; imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from ccp_dml.errors import ConfigError

_FOLD = "{fold}"
_BEST_OF_RUN = Path("checkpoints") / "best"


def locate(pattern: str | None, fold: int | None) -> Path | None:
    """The checkpoint that `--initial_weights` names.

    Args:
        pattern: the folder of a run, whose best weights are meant, or the path of a TensorFlow checkpoint
            without its ending; `{fold}` in it stands for the number of the fold.
        fold: `--fold`.

    Returns:
        The path of the checkpoint without its ending; None if nothing is named.

    Raises:
        ConfigError: if there is none.
    """
    if pattern is None:
        return None
    if _FOLD in pattern and fold is None:
        raise ConfigError(f"--initial_weights={pattern}: {_FOLD} stands for --fold: expected that flag too")
    path = Path(pattern.replace(_FOLD, str(fold))).expanduser()
    prefix = path / _BEST_OF_RUN if path.is_dir() else path
    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        raise ConfigError(
            f"--initial_weights={pattern}: expected the folder of a finished run, or a checkpoint; "
            f"found no file {index}"
        )
    return prefix
