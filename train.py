"""Trains, evaluates and exports an embedding model.

python train.py --flagfile=configs/emoji.cfg
python train.py --help
"""

from __future__ import annotations

import sys

from ccp_dml.train import main, run

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run())
