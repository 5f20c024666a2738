"""The page of a sweep: what it says, what it compares, what it survives. Runs are written as a sweep leaves them, not fitted."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from phosphene._version import __version__
from phosphene.errors import ConfigError
from phosphene.io.config import to_yaml
from phosphene.io.run_folder import RunFolder
from phosphene.lab.reader import InSilicoOptions, simulation
from phosphene.metrics.statistics import paired_difference
from phosphene.run import configure
from phosphene.sweeps.execution import chosen, prepare, sweep
from phosphene.sweeps.grid import read_grid
from phosphene.sweeps.reference import best_linear_of, correlation_over_pictures
from phosphene.sweeps.results import write_results
from phosphene.sweeps.table import block_label, summary_table, within_block
from tests.reporting.test_html import EVIL, pictures, read

OPTIONS = {"n_train": 60, "n_test": 12, "n_voxels": 80}
BASE = {"data": {"name": "insilico", "options": OPTIONS}}
RIDGES = {"recipe.decoder.kind": ["ridge", "inverse"]}
DESIGNS = {"data.options.design": ["nsd", "god"]}


def write(folder: Path, **content) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "grid.yaml"
    values = {"title": "Ridge or inverse", "recipe": "linear", "base": BASE, "metrics": ["pixcorr", "mse"], **content}
    file.write_text(to_yaml(values))
    return file


def fill(whole, qualities: dict[str, float] | None = None):
    """Finished runs, as a sweep would leave them: the seen pictures of the lab with noise, and the scores of that."""
    for name, planned in whole.grid.runs.items():
        part = next((q for part, q in (qualities or {}).items() if part in name), 1.0)
        options = planned.config.data.options
        made = simulation(InSilicoOptions(**options), "sub-01")
        seen = made.images[made.design.is_test].astype(np.float32) / 255
        ids = made.ids[made.design.is_test].astype(str)
        rng = np.random.default_rng(planned.config.seed + 10)
        decoded = np.clip(seen + part * rng.standard_normal(seen.shape), 0, 1).astype(np.float32)
        run = RunFolder(whole.folder(name))
        run.write_manifest(recipe=planned.config.recipe.kind, split_digest=options.get("design", "nsd"), seed=0)
        for source, pixels in (("seen", seen), ("brain", decoded)):
            run.decoded(source=source).mkdir(parents=True, exist_ok=True)
            np.save(run.decoded(source=source) / "pixels.npy", pixels)
            run.write_table(pd.DataFrame({"stimulus": ids}), "decoded", "test", source, "index.csv")
        flat = [p.reshape(len(p), -1) for p in (decoded, seen)]
        values = {
            "pixcorr": np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(*flat, strict=True)]),
            "mse": np.square(decoded - seen).mean(axis=(1, 2, 3)),
        }
        rows = [
            ("test", "brain", m, v.mean(), v.min(), v.max(), 0.1, 0.001, len(v), "strict") for m, v in values.items()
        ]
        columns = ["split", "input", "metric", "value", "ci_low", "ci_high", "chance", "p", "n", "setting"]
        run.write_table(pd.DataFrame(rows, columns=columns), "scores.csv")
        tables = [pd.DataFrame({"input": "brain", "metric": m, "stimulus": ids, "value": v}) for m, v in values.items()]
        run.write_table(pd.concat(tables), "evaluation", "test", "per_item.csv")
        record = whole.out / "done" / f"{name}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({"phosphene": __version__, "seconds": 3.0}))
    write_results(whole)
    return whole


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    file = write(folder, crossed=True, grid=[DESIGNS, RIDGES])
    return fill(prepare(file, folder / "out"), {"inverse": 3.0, "ridge": 0.3})


@pytest.fixture(scope="module")
def page(bench):
    return read(bench.out / "sweep.html")


def test_points_on_other_pictures_are_never_compared(bench):
    grid, summary = bench.grid, pd.read_csv(bench.out / "summary.csv")
    assert {block_label(grid, p) for p in grid.points} == {"data.options.design nsd", "data.options.design god"}
    assert {within_block(grid, p) for p in grid.points} == {"decoder.kind ridge", "decoder.kind inverse"}
    ridge = summary[summary["point"].str.endswith("ridge")]
    assert (ridge["difference"] == 0).all()  # each is the base of its own design
    assert ridge["p"].isna().all()


def test_with_one_repetition_the_difference_is_paired_over_pictures(bench):
    summary = pd.read_csv(bench.out / "summary.csv")
    row = summary[
        (summary["point"] == "data.options.design god, decoder.kind inverse") & (summary["metric"] == "mse")
    ].iloc[0]
    names = [next(n for n in bench.grid.runs if "god" in n and kind in n) for kind in ("inverse", "ridge")]
    ours, base = (
        RunFolder(bench.folder(n))
        .table("evaluation", "test", "per_item.csv")
        .query("metric == 'mse'")["value"]
        .to_numpy()
        for n in names
    )
    found = paired_difference(ours, base, rng=np.random.default_rng(0))
    assert row["n_paired"] == 12
    np.testing.assert_allclose(row["difference"], found.value)
    # Two bootstraps of 2,000 draws with other seeds: bounds agree within a tenth of the interval.
    np.testing.assert_allclose(
        row[["difference_low", "difference_high"]].to_numpy(float),
        [found.low, found.high],
        atol=(found.high - found.low) / 10,
    )
    assert row["p_holm"] == row["p"] < 0.01


def test_over_repetitions_p_is_that_of_the_paired_t_test_and_holm_is_over_points(tmp_path):
    kinds = {"recipe.curve.kind": ["none", "monotone"]}
    file = write(tmp_path, grid=[RIDGES, kinds], repeat=[{"seed": [0, 1, 2]}])
    whole = prepare(file, tmp_path / "out")
    rng = np.random.default_rng(0)
    rows = [
        {"point": p.label, "axis": p.axis, "repeat": f"seed {p.repeat['seed']}", "run": p.run, "seconds": 1.0, "input": "brain",
         "metric": "pixcorr", "value": rng.uniform(), "ci_low": 0, "ci_high": 1, "chance": 0.0, "p": 0.1, "n": 9}
        for p in whole.grid.points
    ]  # fmt: skip
    points = pd.DataFrame(rows)
    table = summary_table(points, whole.grid)
    wide = points.drop_duplicates(["point", "repeat"]).pivot_table(index="repeat", columns="point", values="value")
    for row in table[table["point"] != "base"].itertuples():
        if not wide[row.point].equals(wide["base"]):
            np.testing.assert_allclose(row.p, stats.ttest_rel(wide[row.point], wide["base"]).pvalue, rtol=1e-9)
    assert (table["p_holm"].dropna() >= table["p"].dropna()).all()


def test_the_page_says_what_was_asked_and_what_came_out(bench, page):
    assert "Ridge or inverse" in page.text
    assert "4 points: 4 runs, all of them finished." in page.text
    summary = pd.read_csv(bench.out / "summary.csv").set_index(["point", "metric"])
    for point in bench.grid.points:
        row = summary.loc[(point.label, "pixcorr")]
        assert f"{row['value']:.3f}" in page.text
        assert f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]".replace("-", "−") in page.text
    assert "Design god: Pixel correlation is best with decoder.kind ridge" in page.text
    assert "decoder.kind inverse surely worse" in page.text
    assert "At a glance" in page.text
    assert "data.options.n_voxels 80" in page.text


def test_a_larger_error_is_worse_and_not_better(page):
    cells = re.findall(r'<span class="(better|worse)">([▲▼]) ([+−])', page.raw)
    assert set(cells) == {("worse", "▼", "−"), ("worse", "▼", "+")}  # less correlation, more error


def test_every_row_shows_the_same_pictures_under_the_seen_ones_exactly(bench, page):
    name = next(n for n in bench.grid.runs if "nsd" in n and "inverse" in n)
    run = RunFolder(bench.folder(name))
    ids = list(run.table("decoded", "test", "brain", "index.csv")["stimulus"])
    alts = [a["alt"] for a in page.all("img") if "stimulus" in (a["alt"] or "")]
    of = {
        row: [a.rpartition(" ")[2] for a in alts if a.startswith(f"{row}:")] for row in ("seen", "decoder.kind ridge")
    }
    assert len(of["seen"]) == 2 * 10
    assert of["seen"] == of["decoder.kind ridge"]
    shown = pictures(page, f"decoder.kind inverse: stimulus {of['seen'][0]}")[0]
    expected = np.round(run.pixels("test", "brain")[ids.index(of["seen"][0])] * 255).astype(np.uint8)
    np.testing.assert_array_equal(shown, expected)


def test_the_page_runs_no_script_loads_nothing_and_links_only_to_its_own_runs(bench, page):
    assert not page.all("script")
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    links = {a["href"] for a in page.all("a")}
    own = {f"runs/{quote(n)}/" for n in bench.grid.runs}
    assert {x for x in links if not x.startswith("#")} == own
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert {x[1:] for x in links if x.startswith("#")} <= set(ids)
    assert len(ids) == len(set(ids))
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


@pytest.mark.fault(115)
def test_script_in_a_title_stays_text(tmp_path):
    whole = prepare(write(tmp_path, title=EVIL, grid=[RIDGES]), tmp_path / "out")
    write_results(whole)
    page = read(whole.out / "sweep.html")
    assert "<script" not in page.raw
    assert "onerror" in page.text


def test_failed_and_missing_runs_are_named_with_the_reason(bench, tmp_path):
    shutil.copytree(bench.out, tmp_path / "out")
    whole = prepare(bench.file, tmp_path / "out")
    broken, gone = list(whole.grid.runs)[:2]
    for name in (broken, gone):
        (whole.out / "done" / f"{name}.json").unlink()
    (whole.out / "failed").mkdir()
    (whole.out / "failed" / f"{broken}.txt").write_text("Traceback\nDataError: too few voxels\n")
    write_results(whole)
    text = read(whole.out / "sweep.html").text
    assert "1 of 4 runs failed." in text
    assert "design nsd, decoder.kind ridge: DataError: too few voxels" in text
    assert "1 of 4 runs are not made yet design nsd, decoder.kind inverse." in text


def test_a_run_whose_files_are_damaged_leaves_the_rest_of_the_page(bench, tmp_path):
    shutil.copytree(bench.out, tmp_path / "out")
    whole = prepare(bench.file, tmp_path / "out")
    run = RunFolder(whole.folder(next(iter(whole.grid.runs))))
    (run.decoded() / "pixels.npy").write_bytes(b"garbage")
    (run.evaluation() / "per_item.csv").write_bytes(b"")
    write_results(whole)
    assert "Design god" in read(whole.out / "sweep.html").text


def test_values_of_the_command_line_are_shown_as_they_were_used(tmp_path):
    layers = [("--set", {"data.options.n_train": 77})]
    whole = prepare(write(tmp_path, grid=[RIDGES]), tmp_path / "out", layers)
    write_results(whole)
    assert "data.options.n_train 77" in read(whole.out / "sweep.html").text


# -- what can be reached -----------------------------------------------------------------------------------------------


def config(**values):
    return configure("linear", [("test", {"data.name": "insilico", "data.options": OPTIONS, **values})])[0]


def test_the_best_linear_decoder_scores_what_drawn_noise_says():
    best = best_linear_of(config())
    made = simulation(InSilicoOptions(**OPTIONS), "sub-01")
    test, pixels = made.design.is_test, made.images.reshape(len(made.images), -1) / 255
    decoder = made.subject.bayes_linear(made.signal[~test], pixels[~test], best.showings)
    rng, found = np.random.default_rng(0), []
    noise, clean = made.subject.noise, decoder.fade * made.signal[test].astype(float)
    for _ in range(60):
        own = rng.standard_normal(clean.shape) * np.sqrt(noise.own_variance)
        shared = rng.standard_normal((len(clean), noise.factors.shape[1])) @ noise.factors.T
        betas = clean + (own + shared) / np.sqrt(best.showings)
        shape = (len(clean), 32, 32, 3)
        found.append(
            correlation_over_pictures(decoder.predict(betas).reshape(shape), pixels[test].reshape(shape)).value
        )
    # Correlation at expected variances against the mean of correlations of 12 pictures: they differ in the second order.
    np.testing.assert_allclose(np.mean(found), best.reached, atol=0.05)
    assert best.reached < best.bound


def test_pixel_correlation_is_the_mean_over_pixels_and_zero_for_a_constant():
    rng = np.random.default_rng(0)
    seen = rng.uniform(size=(30, 4, 4, 1))
    decoded = seen + 0.2 * rng.standard_normal(seen.shape)
    expected = np.mean(
        [np.corrcoef(a, b)[0, 1] for a, b in zip(decoded.reshape(30, -1).T, seen.reshape(30, -1).T, strict=True)]
    )
    found = correlation_over_pictures(decoded, seen)
    np.testing.assert_allclose(found.value, expected, rtol=1e-10)
    assert found.low < found.value < found.high
    assert correlation_over_pictures(np.broadcast_to(seen.mean(axis=0), seen.shape), seen).value == 0


@pytest.mark.parametrize("values", [{"split": "kfold:3"}, {"data.roi": "V1"}, {"data.name": "digits69"}])
def test_what_can_be_reached_is_not_claimed_where_it_is_not_known(values):
    settings = configure("linear", [("test", {"data.name": "insilico", **values})])[0]
    assert best_linear_of(settings) is None


# -- which runs --------------------------------------------------------------------------------------------------------


def test_only_takes_patterns_and_refuses_what_fits_nothing(bench, tmp_path):
    assert chosen(bench.grid, None) == list(bench.grid.runs)
    assert chosen(bench.grid, ["*nsd*"]) == [n for n in bench.grid.runs if "nsd" in n]
    with pytest.raises(ConfigError, match="no run of this sweep is called"):
        sweep(bench.file, tmp_path / "out", only=["*nonsense*"])


def test_the_bench_holds_every_recipe_on_every_design():
    from phosphene.recipes import RECIPES

    grid = read_grid(Path(__file__).resolve().parents[2] / "configs" / "bench_lab.yaml")
    designs = {p.sets["data.options.design"] for p in grid.points}
    assert designs == {"nsd", "god", "bold5000", "clusters"}
    ours = {name for name, place in RECIPES.items() if place.startswith("phosphene.")}  # other tests add their own
    assert {run.config.recipe.kind for run in grid.runs.values()} == ours
