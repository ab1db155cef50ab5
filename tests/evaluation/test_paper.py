"""Rows of the tables of the paper."""

from __future__ import annotations

import pytest

from ccp_dml.evaluation.paper import published


@pytest.mark.parametrize(
    "dataset, loss, dimensions, expected",
    [
        ("cub", "ccp/contrastive", 128, ("C2-CCP-L", 0.6239, 0.3349, 0.2267)),
        ("cub", "ccp/contrastive", 512, ("C2-CCP-L", 0.6973, 0.3869, 0.2802)),
        ("inshop", "original_contrastive", 512, ("C1", 0.8012, 0.5311, 0.5015)),
        ("sop", "xbm/original_contrastive", 128, ("C1-XBM-L", 0.7537, 0.4995, 0.4739)),
        ("sop", "soft_triple", 512, ("SoftTriple-S", 0.7848, 0.5368, 0.5077)),
        ("cars196", "soft_triple", 512, ("SoftTriple-L", 0.8490, 0.3769, 0.2780)),
        ("cars196", "proxy_nca", 128, ("ProxyNCA++", 0.7245, 0.2991, 0.1932)),
        ("emoji", "ccp/contrastive", 128, None),
        ("cub", "ccp/contrastive", 64, None),
        ("cub", "mdr/contrastive", 128, None),
        ("cub", "ccp/xbm/contrastive", 128, None),
        ("cub", "ccp/proxy_anchor", 128, None),
    ],
)
def test_rows_are_found_by_data_set_loss_and_dimensions(dataset, loss, dimensions, expected):
    found = published(dataset, loss, dimensions)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        method, values = found
        assert (method, values["precision_at_1"], values["r_precision"], values["map_at_r"]) == expected
