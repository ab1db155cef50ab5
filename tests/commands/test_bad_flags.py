"""Bad command lines: exit code 2, one line, no TensorFlow; every flag refuses values out of its range."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.data import catalog
from ccp_dml.kinds import Choice, Integer, Integers, Kind, Number, Patterns, StepRange, Switch, Text
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones
from ccp_dml.options import Option
from tests import ROOT
from tests.data.image_folder import write_classes

# Runs one command after the other in one process; prints the results, and the heavy packages in use.
PROGRAM = """
import contextlib, io, json, sys
import train
from ccp_dml import commands
results = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = commands.run(lambda: train.main(arguments))
    results.append([code, out.getvalue(), err.getvalue()])
heavy = [name for name in ("tensorflow", "tensorflow_datasets", "keras") if name in sys.modules]
json.dump([results, heavy], sys.stdout)
"""

# By command line, the words that the message must have.
LINES = {
    # Unknown flags.
    "--lerning_rate=1": ["--lerning_rate: unknown flag", "did you mean --learning_rate?"],
    "--embeding_size=8": ["did you mean --embedding_size?"],
    "--bakcbone=resnet50": ["did you mean --backbone?"],
    "--data-dir=x": ["did you mean --data_dir?"],
    "--batchsize=8": ["did you mean --batch_size?"],
    "--skip_bad_image": ["did you mean --skip_bad_images?"],
    "--nooverwrit": ["did you mean --overwrite?"],
    "--qqqqqq=1": ["--qqqqqq: unknown flag", "--help lists all flags"],
    "emoji": ["emoji: unexpected argument"],
    "--seed=1 emoji": ["emoji: unexpected argument"],
    # Unknown names.
    "--dataset=emojis": ["--dataset=emojis is unknown", *catalog.names()],
    "--loss=tripplet": ["--loss=tripplet: ", *losses.LOSSES, *losses.WRAPPERS],
    "--loss=ccp/contrastiv": ["--loss=ccp/contrastiv: ", *losses.LOSSES],
    "--loss=xbn/contrastive": ["--loss=xbn/contrastive: ", *losses.WRAPPERS],
    "--loss=/": ["--loss=/"],
    "--loss=ccp": ["--loss=ccp"],
    "--loss=contrastive/ccp": ["--loss=contrastive/ccp"],
    "--backbone=resnet52": ["--backbone=resnet52", *backbones.BACKBONES],
    "--backbone_weights=imagenet21k": ["--backbone_weights=imagenet21k"],
    "--backbone_weights=none.npz": ["--backbone_weights=none.npz: expected an existing file"],
    "--monitor=accuracy": ["--monitor=accuracy: expected one of map_at_r"],
    "--ccp_monitor=accuracy": ["--ccp_monitor=accuracy: expected one of map_at_r"],
    "--monitor=recall_at_3": ["--monitor=recall_at_3", "--recall_at"],
    "--optimizer=adamm": ["--optimizer=adamm: expected one of", "adam", "sgd"],
    # Values of another kind, or out of range.
    "--seed": ["--seed"],
    "--seed=one": ["--seed=one: expected an integer, at least 0"],
    "--seed=1.5": ["--seed=1.5: expected an integer"],
    "--seed=99999999999": ["--seed=99999999999: expected an integer"],
    "--embedding_size=0": ["--embedding_size=0: expected an integer, at least 1"],
    "--embedding_size=99999999999": ["at most 2147483647"],
    "--learning_rate=0": ["--learning_rate=0: expected a number, above 0"],
    "--learning_rate=nan": ["--learning_rate=nan: expected a number"],
    "--learning_rate=1e39": ["--learning_rate=1e39: expected a number, above 0 and at most 3.4e+38"],
    "--learning_rate=-inf": ["--learning_rate=-inf: expected a number"],
    "--momentum=1 --optimizer=sgd": ["--momentum=1: expected a number, at least 0 and below 1"],
    "--crop_area_min=2": ["--crop_area_min=2: expected a number, above 0 and at most 1"],
    "--recall_at=4,2": ["--recall_at=4,2: expected increasing positive integers"],
    "--recall_at=1,x": ["--recall_at=1,x: expected increasing positive integers"],
    "--overwrite=perhaps": ["--overwrite=perhaps: expected true or false"],
    "--frozen_layers=(": ["--frozen_layers=(: expected regular expressions"],
    "--backbone_options=depth=9": ["--backbone_options=depth=9: "],
    "--dataset=": ["--dataset=: expected the name of a data set"],
    # Contradictions and flags without effect: both flags are named.
    "--crop_area_min=0.9 --crop_area_max=0.5": ["--crop_area_min=0.9", "--crop_area_max=0.5"],
    "--crop_aspect_min=2": ["--crop_aspect_min=2", "--crop_aspect_max"],
    "--image_size=64 --test_shorter_side=60": ["--image_size=64", "--test_shorter_side=60"],
    "--fold=1 --validation_fraction=0.2": ["--fold=1", "--validation_fraction=0.2"],
    "--fold=5 --num_folds=4": ["--fold=5", "--num_folds=4"],
    "--num_folds=4": ["--num_folds=4", "--fold"],
    "--fold=all --num_folds=500 --repeat=3": ["--num_folds", "--repeat=3", "1,500 runs"],
    "--closed_set --fold=1": ["--closed_set=shuffled", "--fold=1"],
    "--protocol=mlrc --validation_fraction=0.2": ["--protocol=mlrc", "--validation_fraction=0.2"],
    "--data_seed=1": ["--data_seed=1", "--closed_set", "--label_noise"],
    "--sampler=random --samples_per_class=2": ["--sampler=random", "--samples_per_class=2"],
    "--batch_size=64": ["--batch_size=64", "--sampler=m_per_class"],
    "--representative_lifetime=3 --samples_per_class=1": ["--representative_lifetime=3", "--samples_per"],
    "--augment_representatives": ["--augment_representatives", "--representative_lifetime=0"],
    "--preprocessing=cifar --crop_area_min=0.5": ["--preprocessing=cifar", "--crop_area_min=0.5"],
    "--ccp_min_iterations=5 --ccp_max_iterations=4": ["--ccp_min_iterations=5", "--ccp_max_iterations=4"],
    "--ccp_step_at_batch --ccp_monitor=map_at_r": ["--ccp_step_at_batch", "--ccp_monitor=map_at_r"],
    "--ccp_patience=5 --ccp_reset_rule=fixed": ["--ccp_patience=5", "--ccp_reset_rule=fixed"],
    "--ccp_normalized_embeddings --pool_size=1": ["--ccp_normalized_embeddings=true", "--pool_size=1"],
    "--ccp_step_at_batch --chunk_size=5": ["--chunk_size=5", "--ccp_step_at_batch=true"],
    "--monitor_split=test --validation_cache_mb=9": ["--validation_cache_mb=9", "--monitor_split=test"],
    "--protocol=conventional --validation_cache_mb=9": ["--validation_cache_mb=9", "--protocol=conv"],
    "--pool_memory_steps=9 --noccp_use_representative_proxy": [
        "--pool_memory_steps=9",
        "--ccp_use_representative_proxy=false",
    ],
    "--loss=contrastive --pool_memory_steps=9": ["--pool_memory_steps=9", "--loss=contrastive"],
    "--prepared_shorter_side=255 --image_size=224 --test_shorter_side=256": [
        "--prepared_shorter_side=255",
        "--test_shorter_side=256",
    ],
    "--prepared_shorter_side=0": ["--prepared_shorter_side=0"],
    "--warm_up_learning_rate=0.1": ["--warm_up_learning_rate=0.1", "--warm_up_epochs"],
    "--ema_decay=0.9": ["--ema_decay=0.9", "--ema_attraction", "--ema_repulsion"],
    "--momentum=0.5": ["--momentum=0.5", "--optimizer=adam"],
    "--plateau_factor=0.1": ["--plateau_factor=0.1", "--learning_rate_schedule=constant"],
    "--pca_dim=256": ["--pca_dim=256", "--embedding_size=128"],
    "--proxies_per_class=0": ["--proxies_per_class=0", "--loss=ccp/contrastive"],
    "--temperature=2": ["--temperature=2", "--loss=ccp/contrastive"],
    "--loss=contrastive --pool_size=3": ["--pool_size=3", "--loss=contrastive"],
    "--loss=mdr/contrastive --normalization=lipschitz": ["--normalization=lipschitz", "--loss=mdr"],
    "--seed=2147483647 --repeat=2": ["--seed=2147483647", "--repeat=2"],
    "--skip_bad_images": ["--skip_bad_images", "--dataset=emoji"],
    "--nocheck_counts": ["--check_counts=false", "--dataset=emoji"],
    "--crop_to_box": ["--crop_to_box", "cub"],
    "--download": ["--download", "cub"],
    "--freeze_batch_norm --backbone=cifar_resnet": ["--freeze_batch_norm"],
    # Files and folders.
    "--dataset=image_folder": ["--dataset=image_folder", "--data_dir"],
    "--dataset=image_folder --data_dir=/none": ["--data_dir=/none"],
    "--dataset=cub --data_dir=/none": ["--dataset=cub --data_dir=/none"],
    "--flagfile=none.cfg": ["--flagfile=none.cfg: cannot be read: No such file"],
    "--flagfile=tests": ["--flagfile=tests: cannot be read: Is a directory"],
    "--flagfile=": ["--flagfile: expected a file name"],
    "--initial_weights=/none": ["--initial_weights=/none: does not exist"],
    "--run_dir=tests": ["--run_dir=tests: the folder holds files and is no run directory"],
    "--run_dir=train.py": ["--run_dir=train.py: expected a folder"],
    "--classes_per_batch=300": ["--classes_per_batch=300: expected at most 242"],
}


def refused(kind: Kind) -> str | None:
    """A text that a flag of this kind refuses; None if it takes any text."""
    if isinstance(kind, Switch):
        return "maybe"
    if isinstance(kind, Choice):
        return "nonsense"
    if isinstance(kind, Integer):
        return str(kind.low - 1)
    if isinstance(kind, Number):
        least = kind.above if kind.low is None else kind.low - 1
        return "nan" if least is None else str(least)
    if isinstance(kind, Integers):
        return "2,1"
    if isinstance(kind, Patterns):
        return "("
    if isinstance(kind, StepRange):
        return "5:2"
    assert isinstance(kind, Text), kind
    return None


def of_every_flag() -> dict[str, list[str]]:
    """A bad command line for each flag that does not take any text, and the words of its message."""
    lines = {}
    for declared, _ in ExperimentConfig().items():
        text = refused(declared.kind)
        if text is not None:
            written = f"--{declared.name}={text}"
            lines[written] = [f"{written}: expected {declared.kind.expected}"]
    return lines


@pytest.fixture(scope="module")
def outcomes() -> tuple[dict[str, list], list[str]]:
    """Exit code, output and errors of each bad command line, and the heavy packages that were imported."""
    lines = [*LINES, *of_every_flag()]
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([line.split() for line in lines]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    results, heavy = json.loads(program.stdout)
    return dict(zip(lines, results)), heavy


@pytest.mark.parametrize("line", LINES)
def test_a_bad_command_line_gives_one_line_and_code_2(outcomes, record_property, line):
    check(outcomes[0][line], LINES[line])
    record_property("bad flags", 1)


def test_every_flag_refuses_a_value_out_of_its_range(outcomes, record_property):
    for line, words in of_every_flag().items():
        check(outcomes[0][line], words)
    record_property("bad flags", len(of_every_flag()))


def check(outcome: list, words: list[str]) -> None:
    code, out, err = outcome
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    for word in words:
        assert word in err


def test_no_bad_command_line_imports_tensorflow(outcomes):
    assert outcomes[1] == []


# Flags of text: names that must exist, and files and folders.
NAMES = {"dataset", "backbone", "backbone_weights", "backbone_options", "loss", "monitor", "ccp_monitor"}
PATHS = {"data_dir", "prepared_dir", "run_dir", "initial_weights", "backbone_layer"}


def test_all_flags_of_text_are_in_the_table():
    def is_free(declared: Option) -> bool:
        return refused(declared.kind) is None

    free = {declared.name for declared, _ in ExperimentConfig().items() if is_free(declared)}
    assert free == NAMES | PATHS
    tested = {argument.split("=")[0].removeprefix("--") for line in LINES for argument in line.split()}
    assert free - {"prepared_dir", "backbone_layer"} <= tested  # These two need data and a model.


@pytest.mark.parametrize("line", ["--lerning_rate=1", "--dataset=emojis", "--crop_aspect_min=2"])
def test_a_bad_command_line_in_a_process_of_its_own(line):
    done = subprocess.run([sys.executable, "train.py", line], cwd=ROOT, capture_output=True, text=True)
    check([done.returncode, done.stdout, done.stderr], LINES[line])


def test_a_flagfile_cannot_include_itself_through_links(tmp_path):
    (tmp_path / "a.cfg").write_text("--flagfile=sub/b.cfg\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.cfg").write_text("--flagfile=link.cfg\n")
    (tmp_path / "sub" / "link.cfg").symlink_to("../a.cfg")
    command = [sys.executable, "train.py", f"--flagfile={tmp_path / 'a.cfg'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    check([done.returncode, done.stdout, done.stderr], ["the file includes itself"])


def test_a_folder_of_images_is_checked_without_tensorflow(tmp_path):
    """No command line in the table above gets as far as reading files of images."""
    folder = write_classes(tmp_path, 3, 1)
    line = [f"--data_dir={folder}", "--dataset=image_folder"]
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps([line]), cwd=ROOT, capture_output=True, text=True
    )
    [outcome], heavy = json.loads(program.stdout)
    check(outcome, [str(folder)])
    assert heavy == []
