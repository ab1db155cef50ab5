from __future__ import annotations

from ccp_dml.monitoring.console import HealthCheck


def test_each_warning_comes_once_and_gives_advice():
    told: list[str] = []
    check = HealthCheck(told.append)
    check.on_epoch_end(0, {"val_mean_cosine": 0.97, "gradient_norm": 1e-9})
    check.on_epoch_end(1, {"val_mean_cosine": float("nan")})
    check.on_epoch_end(2, None)
    assert told == []
    for epoch in (3, 4):
        check.on_epoch_end(epoch, {"val_mean_cosine": 0.999999, "gradient_norm": 0.0})
    collapse, inactive = told
    assert collapse.startswith("epoch 4: the embeddings have collapsed")
    assert "margin" in collapse
    assert inactive.startswith("epoch 4: the loss was inactive")
    assert "miner" in inactive
