"""The papers' numbers, and when they may stand beside ours."""

from __future__ import annotations

import numpy as np
import pytest

from phosphene.errors import ConfigError
from phosphene.metrics import matching, published_rows


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
    assert not rows.duplicated(
        ["method", "dataset", "split", "metric", "source", "table", "hours", "subjects", "setting"]
    ).any()


def lea(**where):
    rows = published_rows()
    rows = rows[rows["source"] == "LEA, Qian et al. 2024, TMLR"]
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return rows


def test_tables_of_lea_are_there_as_printed():
    assert value("LEA", "zero_shot_top1", subjects="2") == 0.18
    assert value("BraVL (vision)", "zero_shot_top1", subjects="1 2 3 4 5") == 0.1216
    assert value("LEA", "pearson.voxels", dataset="god", setting="strict", subjects="5") == 0.1686
    assert value("MinD-Vis", "pearson.voxels", subjects="CSI3") == 0.1648
    assert value("LEA", "fid.pictures.inception64", dataset="god", setting="relax", subjects="5") == 1.25
    assert value("Ozcelik et al.", "two_way.pictures.clip_vit_h14", subjects="2") == 0.8083
    assert value("LEA", "cosine.pictures.clip_vit_h14", dataset="bold5000", subjects="CSI3") == 0.37
    assert value("MinD-Vis", "nway50_top1_class.vit_h14_swag", subjects="3") == 0.2744
    assert value("LEA, 24 heads per ROI", "pearson.voxels", table="6") == 0.3182
    assert value("LEA, patches of 16 instead of ROIs", "nway50_top1_class.vit_h14_swag") == 0.2638
    # 12 methods in table 1; 4 in 2, on two data sets; 6 with 4 metrics in 3; two subjects and an average short in 4.
    wanted = {"1": 12 * 6, "2": 4 * (6 + 5), "3": 4 * 6 * 6, "4": 4 * 2 * 5 - 2 * 3, "5": 7, "6": 7}
    assert lea().groupby("table").size().to_dict() == wanted


def test_printed_averages_of_lea_are_those_of_their_rows_but_for_the_ones_marked():
    checked, marked = 0, set()
    for (method, metric, dataset, setting), rows in lea().groupby(["method", "metric", "dataset", "setting"]):
        average = rows[rows["subjects"].str.contains(" ")]
        if not len(average):
            continue
        mean = rows.loc[~rows["subjects"].str.contains(" ") & rows["table"].isin(["1", "2", "3", "4"]), "value"].mean()
        # Both sides are rounded: to 0.01, which is 0.0001 for what is printed in percent.
        step = 0.01 if metric.startswith(("fid", "cosine")) else 0.0001
        agrees = abs(mean - average["value"].item()) <= step + 1e-9
        if "disagrees" in average["note"].item():
            marked.add((method, metric.split(".")[0], dataset, setting))
            assert not agrees
        else:
            assert agrees, (method, metric, dataset, mean)
        checked += 1
    assert checked == 12 + 8 + 24 + 6
    assert marked == {
        ("LEA", "fid", "god", "relax"),
        ("LEA", "pearson", "bold5000", "relax"),
        ("LEA", "pearson", "bold5000", "strict"),
    }


def gru(**where):
    rows = published_rows()
    rows = rows[rows["source"] == "Two-stage GRU decoder, printed tables"]
    for name, wanted in where.items():
        rows = rows[rows[name] == wanted]
    return rows


def test_tables_of_the_gru_paper_are_there_as_printed():
    def one(method, metric, table, **where):
        found = gru(method=method, metric=metric, table=table, **where)["value"]
        assert len(found) == 1
        return found.item()

    assert one("Transformer, 15 latents", "latents.mse", "2", split="validation") == 0.0690
    assert one("Two-stage GRU, 15 latents", "latents.mae", "2", split="shared") == 0.1388
    assert one("Brain-Diffuser ridge, 15 latents", "latents.mae", "3", split="shared") == 0.1182
    assert one("Brain-Diffuser ridge, 15 latents", "two_way.alexnet2", "4") == 0.935
    assert one("Two-stage GRU (CLIP), 15 latents", "distance.swav", "4") == 0.437
    assert one("Two-stage GRU, 15 latents", "ssim", "4") == 0.370
    assert one("Two-stage GRU, 31 latents", "two_way.clip", "4") == 0.958
    assert one("Two-stage GRU, 31 latents", "pixcorr", "5") == 0.177
    assert one("Two-stage GRU, 15 latents, noise 16", "two_way.alexnet5", "6") == 0.946
    assert one("Two-stage GRU, 15 latents, noise 256", "ssim", "6") == 0.140
    # 3 and 2 methods with 4 numbers, 5 with 8, 6 of which half are incomplete (1, 4 and 4 of 8), 6 amounts of noise with 8.
    wanted = {"2": 3 * 4, "3": 2 * 4, "4": 5 * 8, "5": 3 * 8 + 1 + 4 + 4, "6": 6 * 8}
    assert gru().groupby("table").size().to_dict() == wanted
    assert set(gru(metric="ssim", table="6")["ssim_variant"]) == {"columns (probably)"}
    assert set(gru(metric="pixcorr", table="4")["resize_chain"]) == {"512 to 425, Pillow bicubic"}


def test_the_row_without_noise_is_the_mean_of_four_subjects_and_says_so():
    keys = ["metric", "value"]
    none = gru(method="Two-stage GRU, 15 latents", table="6")
    four = gru(method="Two-stage GRU, 15 latents", table="5")
    assert none[keys].to_numpy().tolist() == four[keys].to_numpy().tolist()
    assert none["note"].str.contains("mean of four subjects of table 5").all()


def test_every_score_of_the_eyes_for_photographs_finds_its_published_rows():
    ours = [f"two_way.pictures.{eye}" for eye in ("alexnet2", "alexnet5", "inception", "clip_vit_l14")]
    ours += ["distance.pictures.efficientnet_b1", "distance.pictures.swav"]
    rows = matching("nsd", "shared", metrics=ours, test_images=982, subjects="1")
    assert set(rows["compared_with"]) == set(ours)
    assert set(rows.loc[rows["comparable"], "compared_with"]) == set(ours)
    assert set(rows.loc[rows["compared_with"] == "two_way.pictures.clip_vit_l14", "metric"]) == {"two_way.clip"}
    assert matching("nsd", "shared", metrics=["two_way.pictures.clip_lab"]).empty


def test_zero_shot_and_pictures_find_their_published_rows():
    rows = matching("god", "test", metrics=["zero_shot_top1.clip_x"], test_images=50, subjects="3", setting="strict")
    assert set(rows["compared_with"]) == {"zero_shot_top1.clip_x"}
    assert "LEA" in set(rows.loc[rows["comparable"], "method"])
    nsd = matching("nsd", "shared", metrics=["two_way.pictures.clip"], test_images=982)
    assert set(nsd["metric"]) == {"two_way.clip"}
    relaxed = matching("god", "test", metrics=["fid.pictures.inception64"], subjects="3", setting="strict")
    mind_vis = relaxed[(relaxed["method"] == "MinD-Vis") & (relaxed["subjects"] == "3")].iloc[0]
    assert mind_vis["difference"] == "setting relax there, strict here"


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
    ours = [f"ssim.{variant}{size}" for variant in ("2d", "columns") for size in ("", ".425")]
    nsd = matching("nsd", "shared", metrics=ours, test_images=982, subjects="1 2 5 7")
    assert set(nsd.loc[nsd["comparable"], "compared_with"]) == {"ssim.columns.425"}


def test_pixel_scores_stand_beside_figures_whose_pictures_were_resized_the_same_way():
    rows = matching("nsd", "shared", metrics=["pixcorr", "pixcorr.425"], test_images=982)
    row = rows[(rows["method"] == "Brain-Diffuser") & (rows["resize_chain"] != "")].set_index("compared_with")
    assert row["comparable"].to_dict() == {"pixcorr": False, "pixcorr.425": True}
    assert (
        row.loc["pixcorr", "difference"]
        == "pictures resized there (512 to 425, Pillow bicubic), as they are stored here"
    )
    silent = rows[(rows["resize_chain"] == "") & (rows["compared_with"] == "pixcorr.425")]
    assert len(silent)
    assert silent["difference"].str.contains("resize chain not stated there").all()
    # A network is shown 224 pixels whatever the size of the pictures.
    two_way = matching("nsd", "shared", metrics=["two_way.pictures.inception"], test_images=982)
    assert two_way["comparable"].any()


def test_what_was_not_stated_counts_as_a_difference():
    rows = matching("nsd", "shared", metrics=["two_way.clip"], test_images=982)
    takagi = rows[(rows["method"] == "Takagi and Nishimoto") & (rows["origin"] == "re-evaluated by others")].iloc[0]
    assert takagi["difference"] == "test images not stated there"


def test_data_set_without_published_numbers_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'digits69'"):
        matching("digits", "file")


@pytest.mark.parametrize(
    ("dataset", "split", "protocol", "method"),
    [
        ("god", "god", {"test_images": 50, "repeats_averaged": 35, "subjects": "sbj_3", "setting": "relax"}, "LEA"),
        ("bold5000", "bold5000-113", {"test_images": 113, "repeats_averaged": "all", "subjects": "CSI1"}, "LEA"),
        (
            "nsd",
            "nsd-982",
            {"test_images": 982, "repeats_averaged": 3, "subjects": "subj01"},
            "Brain-Diffuser ridge, 31 latents",
        ),
    ],
)
def test_a_run_on_a_readers_own_split_finds_rows_it_may_stand_beside(dataset, split, protocol, method):
    rows = matching(dataset, split, **protocol)
    fit = rows[rows["comparable"]]
    assert method in set(fit["method"])
    assert fit["subjects"].nunique() == 1  # no other person, and no average over several
    other = matching(dataset, "kfold:5", **protocol)
    assert not other["comparable"].any()
    assert other["difference"].str.contains("split .* there, kfold:5 here").all()


@pytest.mark.parametrize(
    ("field", "ours", "reason"),
    [
        ("subjects", "sbj_2", "subjects 3 there, sbj_2 here"),
        ("repeats_averaged", 1, "repeats averaged 35 there, 1 here"),
        ("test_images", 49, "test images 50 there, 49 here"),
        ("setting", "strict", "setting relax there, strict here"),
    ],
)
def test_each_field_that_differs_is_named(field, ours, reason):
    protocol = {"test_images": 50, "repeats_averaged": 35, "subjects": "sbj_3", "setting": "relax"} | {field: ours}
    rows = matching("god", "god", metrics=["fid.pictures.inception64"], **protocol)
    row = rows[(rows["method"] == "LEA") & (rows["setting"] == "relax") & (rows["subjects"] == "3")].iloc[0]
    assert not row["comparable"]
    assert row["difference"] == reason


def test_single_showings_stand_beside_no_mean_over_all_of_them():
    rows = matching("nsd", "nsd-982", test_images=982, repeats_averaged=1, subjects="subj01")
    stated = rows[rows["repeats_averaged"] != ""]
    assert len(stated)
    assert not stated["comparable"].any()


def test_the_one_person_of_a_data_set_needs_no_name():
    assert matching("digits69", "file", test_images=10, repeats_averaged=1, subjects="subject")["comparable"].any()
    assert not matching("digits69", "file", test_images=10, repeats_averaged=1, subjects="sub-02")["comparable"].any()
