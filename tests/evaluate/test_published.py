"""The papers' numbers, and when they may stand beside ours."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.errors import ConfigError
from phosphene.evaluate import matching, published_rows


def value(method, metric, **where):
    rows = published_rows()
    rows = rows[(rows["method"] == method) & (rows["metric"] == metric)]
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    assert len(rows) == 1, rows
    return rows.iloc[0]["value"]


def test_table_holds_the_printed_values():
    assert value("DGMM", "pixcorr") == 0.803
    assert value("DGMM", "mse") == 0.037
    assert value("DGMM", "ssim") == 0.645
    assert value("Brain-Diffuser", "two_way.inception", test_images=982) == 0.872
    assert value("Brain-Diffuser", "two_way.inception", origin="re-evaluated by others") == 0.913
    assert value("MindEye2", "two_way.alexnet5", hours=1) == 0.906
    assert value("Brain-IT", "distance.swav", hours=40) == 0.320
    assert value("MindEye1", "ssim", source="MedARC-AI/fMRI-reconstruction-NSD, Reconstruction_Metrics.ipynb") == 0.347
    assert value("UMBRAE", "caption.cider") == 61.06


def test_every_row_says_where_it_comes_from_and_lies_in_range():
    rows = published_rows()
    assert (rows["origin"] != "").all()
    assert (rows["source"] != "").all()
    assert np.isfinite(rows["value"]).all()
    shares = rows[rows["metric"].str.match(r"two_way|pixcorr|ssim|distance|retrieval")]
    assert shares["value"].between(0, 1).all()
    assert not rows.duplicated(["method", "dataset", "metric", "source", "table", "hours", "subjects"]).any()


def test_caller_cannot_change_the_table():
    rows = published_rows()
    rows["value"] = 0
    assert value("DGMM", "pixcorr") == 0.803


def test_only_the_same_protocol_is_comparable():
    same = matching("digits69", "file", metrics=["pixcorr", "mse"], test_images=10, subjects="1")
    assert same["comparable"].all()
    other = matching("digits69", "kfold:10", metrics=["pixcorr"], test_images=100)
    assert not other["comparable"].any()
    assert other["difference"][0] == "split file there, kfold:10 here; test images 10 there, 100 here"


def test_ssim_without_a_stated_variant_is_never_comparable():
    rows = matching("digits69", "file", metrics=["ssim.2d", "ssim.columns"], test_images=10)
    assert len(rows) == 2
    assert not rows["comparable"].any()
    assert rows["difference"].str.contains("SSIM variant not stated there").all()
    nsd = matching("nsd", "shared", metrics=["ssim.2d", "ssim.columns"], test_images=982, subjects="1 2 5 7")
    assert set(nsd.loc[nsd["comparable"], "compared_with"]) == {"ssim.columns"}


def test_what_was_not_stated_counts_as_a_difference():
    rows = matching("nsd", "shared", metrics=["two_way.clip"], test_images=982)
    takagi = rows[(rows["method"] == "Takagi and Nishimoto") & (rows["origin"] == "re-evaluated by others")].iloc[0]
    assert takagi["difference"] == "test images not stated there"


def test_data_set_without_published_numbers_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'digits69'"):
        matching("digits", "file")
