"""The page: what it says, what it survives, what it never does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from phosphene.errors import ConfigError, ModelError, SplitError
from phosphene.io.run_folder import RunFolder
from phosphene.reporting import report

EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br", "line", "circle", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """A page as a parser sees it: tags with attributes, text, and whether every tag is closed in order."""

    text: str = ""
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    raw: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags, f"</{tag}> closes nothing"
        assert self.open_tags[-1] == tag, f"</{tag}> closes <{self.open_tags[-1]}>"
        self.open_tags.pop()

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] != "style":
            self.text += f"{data} "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def read(path: Path) -> Page:
    page = Page()
    page.raw = path.read_text(encoding="utf-8")
    page.feed(page.raw)
    page.close()
    assert page.open_tags == []
    page.text = " ".join(page.text.split())
    return page


def assert_inert(page: Page) -> None:
    """No script, no handler, nothing loaded from anywhere."""
    assert not page.all("script")
    for tag, attrs in page.tags:
        assert not [a for a in attrs if a.startswith("on")], tag
        for name in ("src", "href", "srcset", "action", "data"):
            value = attrs.get(name) or ""
            assert re.match(r"data:image/(png|jpeg|svg\+xml);base64,|#|$", value), f"{tag} {name}={value[:60]}"
    assert "@import" not in page.raw
    assert not re.search(r"url\((?!#)", page.raw)


def pictures(page: Page, alt: str) -> list[np.ndarray]:
    """The pictures whose alternative text begins with `alt`, decoded again."""
    found = [a for a in page.all("img") if (a["alt"] or "").startswith(alt)]
    return [np.asarray(Image.open(BytesIO(base64.b64decode(a["src"].split(",", 1)[1])))) for a in found]


def page_of(made, where: Path) -> Page:
    """The page of a run, written elsewhere: no PNG figures are drawn then."""
    return read(report(made.run, out=where / "page.html"))


@pytest.fixture(scope="session")
def page(finished) -> Page:
    return read(report(finished.run))


# -- what it says ------------------------------------------------------------------------------------------------------


def test_page_is_written_into_the_run_and_has_every_section(finished, page):
    assert (finished.run.path / "report.html").read_text(encoding="utf-8") == page.raw
    ids = {a["id"] for _, a in page.tags if "id" in a}
    wanted = {"pictures", "scores", "published", "identification", "encoding", "validity", "methods", "configuration"}
    assert wanted <= ids
    assert {a["href"] for a in page.all("a")} <= {f"#{i}" for i in ids}
    assert "fitted on 160 pictures and tested on 40 set aside" in page.text
    assert "Not above the category-only decoder." in page.text
    assert not list(finished.run.path.glob(".partial-*"))


def test_best_median_worst_and_random_pictures_are_the_right_ones(finished, page):
    order = np.argsort(-finished.pixcorr, kind="stable")
    shown = [re.search(r"stimulus (\w+)", a["alt"])[1] for a in page.all("img") if a["alt"].startswith("decoded: ")]
    best, median, worst, rest = shown[:4], shown[4:8], shown[8:12], shown[12:]
    assert best == [finished.ids[i] for i in order[:4]]
    assert median == [finished.ids[i] for i in order[18:22]]
    assert worst == [finished.ids[i] for i in order[-4:]]
    assert len(set(rest)) == 12
    assert rest == sorted(rest)


def test_pictures_are_pixel_exact_and_stay_sharp(finished, page):
    best = int(np.argmax(finished.pixcorr))
    for label, source in (
        ("seen", finished.seen),
        ("decoded", finished.decoded["brain"]),
        ("shuffled", finished.decoded["shuffled"]),
    ):
        found = pictures(page, f"{label}: stimulus {finished.ids[best]}")[0]
        np.testing.assert_array_equal(found, np.round(source[best, :, :, 0] * 255).astype(np.uint8))
    sharp = [a for a in page.all("img") if a["alt"].startswith("decoded: ")]
    assert all("sharp" in a["class"] for a in sharp)


def test_score_table_prints_the_numbers_of_scores_csv_with_controls_beside(finished, page):
    table = finished.run.table("scores.csv").set_index(["input", "metric"])
    for source in ("brain", "shuffled", "noise", "mean", "category"):
        row = table.loc[(source, "pixcorr")]
        assert f"{row['value']:.3f}" in page.text
        assert f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]".replace("-", "−") in page.text


def marked(page: Page) -> int:
    """Controls marked in the table, the explanation of the mark not counted."""
    return page.raw.count('<abbr class="mark" title="the brain is not clearly better">')


def test_a_control_as_good_as_the_brain_is_marked_by_the_paired_difference(made, tmp_path):
    assert marked(page_of(made, tmp_path)) == 0
    table = made.run.table("evaluation", "test", "differences.csv")
    table.loc[(table["control"] == "category") & (table["metric"] == "mse"), "ci_low"] = -0.1
    made.run.write_table(table, "evaluation", "test", "differences.csv")
    page = page_of(made, tmp_path)
    assert marked(page) == 1
    assert "the score alone is no evidence of decoding" in page.text


def test_without_paired_differences_intervals_decide_in_the_direction_of_the_metric(made, tmp_path):
    (made.run.evaluation() / "differences.csv").unlink()
    table = made.run.table("scores.csv")
    noise = (table["input"] == "noise") & (table["metric"] == "mse")
    for error, marks in ((5.0, 0), (0.0, 1)):  # an error far above the brain's is worse, one below it is not
        table.loc[noise, ["value", "ci_low", "ci_high"]] = [error, error - 1e-4, error + 1e-4]
        made.run.write_table(table, "scores.csv")
        assert marked(page_of(made, tmp_path)) == marks


def test_failed_checks_come_first_and_in_words(finished, page):
    verdicts = re.findall(r"(?:✕|▲|✓|–|○) (fail|flag|pass|not applicable|not tested) (?=S|B)", page.text)
    # The first stands in the alert, the flag after it among the conclusions, the rest in the table.
    assert verdicts == ["fail", "flag", "fail", "flag", "pass", "not applicable", "not tested"]
    assert page.text.index("Read this before the scores") < page.text.index("Seen and decoded")


def test_what_scores_depend_on_stands_below_them(made, tmp_path):
    file = made.run.path / "manifest.json"
    manifest = json.loads(file.read_text())
    assert "Setting strict." in page_of(made, tmp_path).text  # a run from before recipes named conditions
    file.write_text(
        json.dumps({**manifest, "conditions": {"moments": f"test (of the test batch) {EVIL}", "norm": "voxel"}})
    )
    page = page_of(made, tmp_path)
    assert "Setting strict; moments test (of the test batch)" in page.text
    assert "; norm voxel." in page.text
    assert_inert(page)
    file.write_text(json.dumps({**manifest, "conditions": ["no", "names"]}))
    assert "Setting strict." in page_of(made, tmp_path).text


@pytest.mark.parametrize("n", [1, 12, 55])
def test_near_copies_that_a_check_found_are_shown_beside_it(made, tmp_path, n):
    folder = made.run.evaluation("test")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"a{i},b{i},2,0.99" for i in range(n)]
    (folder / "near_duplicates.csv").write_text("\n".join(["test,train,bits,cosine", *rows]) + "\n")
    sheet = Image.fromarray(np.random.default_rng(0).integers(0, 256, (192, 96, 3), dtype=np.uint8))
    sheet.save(folder / "near_duplicates.png")
    page = page_of(made, tmp_path)
    (shown,) = pictures(page, "Test pictures, and below each its near copy in training.")
    assert np.array_equal(shown, np.asarray(sheet))
    assert f"({n} pair" in page.text
    assert ("the nearest 40 drawn" in page.text) == (n > 40)


def test_a_damaged_sheet_of_near_copies_is_named_and_left_out(made, tmp_path):
    folder = made.run.evaluation("test")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "near_duplicates.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    page = page_of(made, tmp_path)
    assert "evaluation/test/near_duplicates.png cannot be used" in page.text
    assert not pictures(page, "Test pictures, and below each its near copy in training.")


def test_published_rows_that_are_not_comparable_say_why(finished, page):
    assert "no: distractors from 300 pictures, another person" in page.text
    assert page.text.index("Peer A (2020)") < page.text.index("Peer B (2021)")


def test_methods_state_window_and_range_of_ssim_how_r_is_averaged_and_what_was_skipped(finished, page):
    text = page.text
    assert "Gaussian window sigma 1.5 of 11 taps, data range 1" in text
    assert "averaged plainly over pictures" in text
    assert "two_way.alexnet2 the weights of AlexNet are not on this machine" in text
    assert "two_way.pca (category) it has no latents" in text


def test_configuration_shows_origins_and_marks_what_a_person_chose(finished, page):
    rows = re.findall(r'<tr class="(changed)?"><th scope="row"><code>([\w.]+)</code>', page.raw)
    marked = {key for mark, key in rows if mark}
    assert marked == {"recipe.alpha", "data.name", "data.root"}


def test_ten_pictures_are_all_shown_from_best_to_worst(tmp_path, make_run):
    made = make_run(tmp_path / "few", n_test=10)
    page = page_of(made, tmp_path)
    shown = [re.search(r"stimulus (\w+)", a["alt"])[1] for a in page.all("img") if a["alt"].startswith("decoded: ")]
    assert shown == [made.ids[i] for i in np.argsort(-made.pixcorr, kind="stable")]


def test_every_image_has_a_text_and_every_table_headers(finished, page):
    assert all(a.get("alt") for a in page.all("img"))
    assert page.raw.count("<table") == page.raw.count("<thead>")
    assert all(a.get("scope") for a in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"


def test_figures_are_written_as_png(finished, page):
    names = {p.name for p in (finished.run.path / "figures").iterdir()}
    assert {"pictures.png", "similarity.pixels.png", "retrieval.png", "voxels.png", "rois.png", "flatmap.png"} <= names
    for name in names:
        Image.open(finished.run.path / "figures" / name).verify()


def test_out_names_another_file_and_leaves_the_run_alone(made, tmp_path):
    before = sorted(p.name for p in made.run.path.rglob("*"))
    path = report(made.run, out=tmp_path / "pages" / "x.html")
    assert path == tmp_path / "pages" / "x.html"
    assert read(path).text
    assert sorted(p.name for p in made.run.path.rglob("*")) == before


def test_same_run_makes_the_same_bytes(made, tmp_path):
    assert page_of(made, tmp_path).raw == page_of(made, tmp_path).raw


# -- security ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(115)
def test_script_in_any_text_of_the_run_stays_text(full, tmp_path):
    run = full.run
    for name in ["seen", *full.decoded]:
        index = run.table("decoded", "test", name, "index.csv")
        index["stimulus"] = [f"{EVIL}{i}" for i in range(len(index))]
        index["category"] = [f'"><svg onload=alert({i % 2})>' for i in range(len(index))]
        run.write_table(index, "decoded", "test", name, "index.csv")
    items = run.table("evaluation", "test", "per_item.csv")
    items["stimulus"] = [f"{EVIL}{int(s[1:])}" for s in items["stimulus"]]
    run.write_table(items, "evaluation", "test", "per_item.csv")
    voxels = run.table("encoded", "test", "voxels.csv")
    run.write_table(
        voxels.rename(columns={"roi.V1": f"roi.{EVIL}", "roi.V2": "roi.$\\frac{"}), "encoded", "test", "voxels.csv"
    )
    (run.evaluation() / "conclusions.txt").write_text(f"Above {EVIL}\n")
    for where, column in ((("validity.csv",), "reason"), (("evaluation", "test", "skipped.csv"), "reason")):
        table = run.table(*where)
        table[column] = EVIL
        run.write_table(table, *where)
    published = run.table("evaluation", "test", "published.csv")
    run.write_table(published.assign(method=EVIL, source=EVIL, difference=EVIL), "evaluation", "test", "published.csv")
    scores = run.table("scores.csv")
    scores.loc[scores["metric"] == "two_way.pixels", "metric"] = f"two_way.{EVIL}"
    scores.loc[scores["input"] == "noise", "input"] = EVIL
    run.write_table(scores, "scores.csv")
    (run.path / "config.yaml").write_text(json.dumps({"recipe": {EVIL: EVIL}}))
    manifest = run.manifest
    manifest["recipe"] = manifest["data"]["name"] = manifest["data"]["about"]["title"] = EVIL
    run.write_manifest(**manifest)
    np.save(run.evaluation() / "similarity.<script>alert(1)<|script>.npy", np.eye(3))
    page = read(report(run))
    assert_inert(page)
    assert "<script" not in page.raw
    assert "onerror" in page.text  # it is there, as text


@pytest.mark.fault(115)
def test_policy_allows_no_script_and_only_this_style_sheet(finished, page):
    assert_inert(page)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page.raw, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [t for t, a in page.tags if "style" in a]  # the policy would drop them


@pytest.mark.fault(115)
def test_figures_inside_the_page_hold_no_script_and_load_nothing(full, tmp_path):
    voxels = full.run.table("encoded", "test", "voxels.csv")
    full.run.write_table(voxels.rename(columns={"roi.V1": f"roi.{EVIL}"}), "encoded", "test", "voxels.csv")
    page = page_of(full, tmp_path)
    drawings = [a["src"].split(",", 1)[1] for a in page.all("img") if a["src"].startswith("data:image/svg+xml")]
    assert len(drawings) >= 6
    for text in (base64.b64decode(d).decode() for d in drawings):
        assert not re.search(r"<(script|foreignObject|img)\b", text)
        links = re.findall(r'(?:xlink:)?href="([^"]*)"', text)
        assert all(re.match(r"#|data:image/png;base64,", link) for link in links)


@pytest.mark.fault(119)
def test_home_folders_and_secrets_do_not_reach_the_page(made, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/srv/people/ada.l")
    run = made.run
    config = {
        "data": {
            "root": "/srv/people/ada.l/data",
            "options": {"hub_token": "tok-1234567", "url": "https://ada:pw12@hub/x"},
        }
    }
    (run.path / "config.yaml").write_text(json.dumps(config))
    run.write_manifest(cache="/home/grace/cache", key="hf_abcdefghijklmnopqrst", windows="C:\\Users\\Grace\\runs")
    (run.evaluation() / "conclusions.txt").write_text("Read from /srv/people/ada.l/data and /Users/grace/x.\n")
    raw = read(report(run)).raw
    for hidden in ("/srv/people/ada", "grace", "Grace", "tok-1234567", "pw12", "hf_abc"):
        assert hidden not in raw, hidden
    assert "~/data" in raw
    assert "~/cache" in raw


# -- what it survives --------------------------------------------------------------------------------------------------


def test_a_run_that_was_only_fitted_says_what_to_type(made, tmp_path):
    import shutil

    for part in ("decoded", "encoded", "evaluation"):
        shutil.rmtree(made.run.path / part)
    for part in ("scores.csv", "validity.csv"):
        (made.run.path / part).unlink()
    text = page_of(made, tmp_path).text
    for verb in ("decode", "encode", "evaluate"):
        assert f"phosphene {verb} {made.run.path}" in text


PARTS = (
    "scores.csv", "validity.csv", "origins.csv", "splits.csv", "config.yaml", "decoded/test/brain/pixels.npy",
    "decoded/test/brain/index.csv", "decoded/test/seen/pixels.npy", "evaluation/test/per_item.csv",
    "evaluation/test/published.csv", "evaluation/test/voxels.csv", "evaluation/test/similarity.pixels.npy",
    "evaluation/test/retrieval.csv",
)  # fmt: skip
GARBAGE = b'\x00\xff{[garbage,\n"\x93,,,\n' * 3


@pytest.mark.parametrize("content", [None, b"", GARBAGE], ids=["gone", "empty", "garbage"])
def test_all_parts_may_be_gone_or_damaged_at_once(full, content, tmp_path):
    for name in PARTS:
        (full.run.path / name).unlink() if content is None else (full.run.path / name).write_bytes(content)
    assert "linear on blobs" in page_of(full, tmp_path).text


@pytest.mark.parametrize("name", PARTS)
def test_a_damaged_part_is_named_and_the_rest_is_shown(made, name, tmp_path):
    (made.run.path / name).write_bytes(GARBAGE)
    text = page_of(made, tmp_path).text
    assert Path(name).name in text
    assert "cannot be" in text
    assert "Can it be believed?" in text or name == "validity.csv"


def test_a_damaged_manifest_is_named_and_a_missing_one_is_no_run(made, tmp_path):
    (made.run.path / "manifest.json").write_bytes(GARBAGE)
    assert "manifest.json cannot be read" in page_of(made, tmp_path).text
    (made.run.path / "manifest.json").unlink()
    with pytest.raises(ModelError, match="is not a run"):
        report(made.run)


def test_nothing_but_a_manifest_is_enough_for_a_page(tmp_path):
    run = RunFolder(tmp_path / "bare")
    run.write_manifest(recipe="linear")
    text = read(report(run)).text
    assert "linear on unknown data" in text
    assert "phosphene decode" in text


@pytest.mark.parametrize(("recipe", "asked"), [("linear", True), ("brain_diffuser", False), ("of_a_plugin", True)])
def test_only_a_recipe_that_encodes_is_asked_for_responses(recipe, asked, tmp_path):
    run = RunFolder(tmp_path / "bare")
    run.write_manifest(recipe=recipe)
    assert ("phosphene encode" in read(report(run)).text) == asked


@pytest.mark.fault(123)
def test_constant_predictions_and_nan_scores_are_shown_as_undefined(full, tmp_path):
    pixels = np.full_like(full.decoded["brain"], 0.5)
    np.save(full.run.decoded() / "pixels.npy", pixels)
    np.save(full.run.evaluation() / "similarity.pixels.npy", np.full((40, 40), np.nan))
    for where in (("scores.csv",), ("evaluation", "test", "per_item.csv")):
        table = full.run.table(*where)
        columns = [c for c in ("value", "ci_low", "ci_high", "p") if c in table]
        table.loc[table["input"] == "brain", columns] = np.nan
        full.run.write_table(table, *where)
    voxels = full.run.table("evaluation", "test", "voxels.csv")
    full.run.write_table(voxels.assign(r=np.nan, ceiling=0.0), "evaluation", "test", "voxels.csv")
    page = page_of(full, tmp_path)
    assert not re.search(r"\bnan\b", re.sub(r'data:[^"]*', "", page.raw), re.IGNORECASE)
    assert len(pictures(page, "decoded: ")) == 12
    assert "Random sample" in page.text


@pytest.mark.fault(123)
def test_undefined_pictures_are_sorted_last_and_still_shown(made, tmp_path):
    table = made.run.table("evaluation", "test", "per_item.csv")
    first = made.ids[int(np.argmax(made.pixcorr))]
    table.loc[(table["stimulus"] == first) & (table["input"] == "brain"), "value"] = np.nan
    made.run.write_table(table, "evaluation", "test", "per_item.csv")
    page = page_of(made, tmp_path)
    shown = [re.search(r"stimulus (\w+)", a["alt"])[1] for a in page.all("img") if a["alt"].startswith("decoded: ")]
    assert shown[11] == first


@pytest.mark.fault(125)
def test_p_of_zero_is_called_invalid(made, tmp_path):
    table = made.run.table("scores.csv")
    made.run.write_table(table.assign(p=0.0), "scores.csv")
    assert "0 (invalid)" in page_of(made, tmp_path).text


@pytest.mark.fault(128)
def test_a_hundred_thousand_pictures_make_a_small_page(made, tmp_path):
    n = 100_000
    pixels = np.lib.format.open_memmap(made.run.decoded() / "pixels.npy", "w+", np.float32, (n, 4, 4, 1))
    pixels[:] = np.linspace(0, 1, n, dtype=np.float32)[:, None, None, None]
    pixels.flush()
    seen = made.run.decoded(source="seen")
    np.save(seen / "pixels.npy", pixels)
    ids = [f"p{i:06d}" for i in range(n)]
    for source in ("brain", "seen"):
        pd.DataFrame({"stimulus": ids}).to_csv(made.run.decoded(source=source) / "index.csv", index=False)
    items = pd.DataFrame({"input": "brain", "metric": "pixcorr", "stimulus": ids, "value": np.linspace(-1, 1, n)})
    items.to_csv(made.run.evaluation() / "per_item.csv", index=False)
    path = report(made.run, out=tmp_path / "page.html")
    page = read(path)
    assert path.stat().st_size < 3_000_000
    assert "100,000 pictures were decoded" in page.text
    assert "120 of 100,000, evenly spaced" in page.text
    assert next(a["alt"] for a in page.all("img") if a["alt"].startswith("decoded")).startswith(
        "decoded: stimulus p099999"
    )


def test_large_colour_pictures_are_made_smaller(tmp_path, make_run):
    made = make_run(tmp_path / "large", n_test=14, side=16, channels=3)
    for name in ["seen", "brain"]:
        big = np.repeat(np.repeat(np.load(made.run.decoded(source=name) / "pixels.npy"), 20, axis=1), 20, axis=2)
        np.save(made.run.decoded(source=name) / "pixels.npy", big)
    path = report(made.run, out=tmp_path / "page.html")
    found = pictures(read(path), "decoded: ")
    assert {f.shape for f in found} == {(224, 224, 3)}
    assert path.stat().st_size < 5_000_000


def test_a_control_of_another_order_is_matched_by_stimulus(made, tmp_path):
    index = made.run.table("decoded", "test", "shuffled", "index.csv")
    made.run.write_table(index.iloc[::-1], "decoded", "test", "shuffled", "index.csv")
    np.save(made.run.decoded(source="shuffled") / "pixels.npy", made.decoded["shuffled"][::-1])
    best = int(np.argmax(made.pixcorr))
    found = pictures(page_of(made, tmp_path), f"shuffled: stimulus {made.ids[best]}")[0]
    np.testing.assert_array_equal(found, np.round(made.decoded["shuffled"][best, :, :, 0] * 255).astype(np.uint8))


def test_not_a_run_is_an_error_that_names_the_folder(tmp_path):
    with pytest.raises(ModelError, match="is not a run"):
        report(RunFolder(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="at least one run"):
        report([])


# -- several runs ------------------------------------------------------------------------------------------------------


def test_two_runs_stand_side_by_side(made, make_run, tmp_path):
    other = make_run(tmp_path / "noisy", noise=3.0, seed=1)
    path = report([made.run, other.run])
    page = read(path)
    assert path == made.run.path / "report.html"
    assert "2 runs, tested on the same pictures" in page.text
    for run in (made.run, other.run):
        value = run.table("scores.csv").set_index(["input", "metric"]).loc[("brain", "pixcorr"), "value"]
        assert f"{value:.3f}" in page.text
    best = int(np.argmax(made.pixcorr))
    found = pictures(page, f"noisy: stimulus {made.ids[best]}")[0]
    np.testing.assert_array_equal(found, np.round(other.decoded["brain"][best, :, :, 0] * 255).astype(np.uint8))
    assert "another person, ROI or preparation" in page.text
    assert len({a["id"] for _, a in page.tags if "id" in a}) == len([a for _, a in page.tags if "id" in a])


@pytest.mark.fault(129)
def test_runs_of_different_splits_are_refused_with_the_reason(made, make_run, tmp_path):
    other = make_run(tmp_path / "other")
    other.run.write_manifest(split_digest="e" * 64)
    before = sorted(p.name for p in made.run.path.rglob("*"))
    with pytest.raises(
        SplitError, match=r"linear-S1 on 'file' \(40 test stimuli\), other on 'file' .* training sets differ"
    ):
        report([made.run, other.run])
    assert sorted(p.name for p in made.run.path.rglob("*")) == before


@pytest.mark.fault(129)
def test_runs_of_different_test_pictures_are_refused_even_without_digests(made, make_run, tmp_path):
    fewer = make_run(tmp_path / "fewer", n_test=20)
    for run in (made.run, fewer.run):
        run.write_manifest(split_digest="")
    with pytest.raises(SplitError, match="20 of them in common"):
        report([made.run, fewer.run])
