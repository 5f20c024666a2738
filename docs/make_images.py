"""Make the pictures of the documentation, and measure the numbers that stand beside them.

    python docs/make_images.py demo RUN     the strip in the README, from a run of `phosphene demo --out RUN`
    python docs/make_images.py beside NAME LABEL=RUN:INPUT ...   runs on the same pictures, row by row, what was seen first:
        beside lea seen=LEA:seen lea=LEA:brain regressor=REGRESSOR:brain truth=LEA:truth shuffled=LEA:shuffled noise=LEA:noise
    python docs/make_images.py designs OUT  every recipe on every design, from `phosphene sweep configs/bench_lab.yaml --out OUT`
    python docs/make_images.py insilico     the pictures of docs/insilico.md
    python docs/make_images.py checks       the picture of docs/validity.md
    python docs/make_images.py numbers RUN  print the numbers of docs/insilico.md; RUN is that of the demo

All go to docs/images. Each is made from the library's own data and figures; nothing is drawn by hand.
"""

from __future__ import annotations

import io
import resource
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
from PIL import Image

from phosphene.lab import Simulation, Subject, make, scenes
from phosphene.lab.bold import scan
from phosphene.lab.cortex import AREAS
from phosphene.reporting import figures, flatmap
from phosphene.types import Trials

IMAGES = Path(__file__).resolve().parent / "images"
INK, MUTED, BRAIN, CEILING = figures.INK, figures.MUTED, figures.BRAIN, figures.CEILING
FAULT = figures.CONTROL


def save(figure, name: str, dpi: float = 140, colours: int | None = 256) -> None:
    """Write a figure as a small PNG."""
    write(Image.open(io.BytesIO(figures.png(figure, dpi))).convert("RGB"), name, colours)


def write(picture: Image.Image, name: str, colours: int | None = 256) -> None:
    """Write a picture with a palette of at most so many colours, or with all of them for None."""
    if colours is not None:
        picture = picture.quantize(colours, kmeans=1, dither=Image.Dither.NONE)
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    sys.stdout.write(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB\n")


# -- README --------------------------------------------------------------------------------------------------------------


def demo(run: Path, every: int = 6) -> None:
    """Every 6th test picture of the run, in the order they are stored: no choice by quality."""
    decoded = run / "decoded" / "test"
    rows = {name: np.load(decoded / name / "pixels.npy")[::every] for name in ("seen", "brain", "shuffled", "noise")}
    controls = {"shuffled": rows["shuffled"], "noise": rows["noise"]}
    figure = figures.picture_rows(rows["seen"], rows["brain"], controls, width=10.0)
    axes = figure.axes[0]
    inches = axes.get_position().width * figure.get_figwidth()
    save(figure, "demo", dpi=2 * axes.images[0].get_array().shape[1] / inches, colours=None)  # whole pixels stay whole


def beside(name: str, sources: list[str], every: int = 6) -> None:
    """Every 6th test picture of several runs on the same data; each source is LABEL=RUN:INPUT, what was seen first."""
    rows = {}
    for source in sources:
        label, _, place = source.partition("=")
        run, _, given = place.rpartition(":")
        rows[label] = np.load(Path(run) / "decoded" / "test" / given / "pixels.npy")[::every]
    (_, seen), (first, top), *others = rows.items()
    figure = figures.picture_rows(seen, top, dict(others), labels=("seen", first), width=10.0)
    axes = figure.axes[0]
    inches = axes.get_position().width * figure.get_figwidth()
    save(figure, name, dpi=2 * axes.images[0].get_array().shape[1] / inches, colours=None)


def designs(sweep: Path) -> None:
    """Every recipe on every design of the bench: identification by what is shown, and correlation of pixels."""
    import pandas as pd
    from matplotlib.figure import Figure

    table = pd.read_csv(sweep / "summary.csv")
    names = table["point"].str.extract(r"design (?P<design>\w+), recipe (?P<recipe>\w+)")
    table = table.join(names).set_index(["metric", "design", "input", "recipe"]).sort_index()
    asked = {"two_way.pictures.scenes": "two-way, classifier of pictures", "pixcorr": "PixCorr"}
    columns = ["nsd", "god", "bold5000", "clusters"]
    first = table.loc[(next(iter(asked)), columns[0], "brain"), "value"].sort_values()
    rows = {recipe: row for row, recipe in enumerate(first.index)}
    with figures.style():
        figure = Figure(figsize=(11, 7.6), layout="constrained")
        axes = figure.subplots(2, 4, sharex="row", sharey=True)
        for line, (metric, title) in zip(axes, asked.items(), strict=True):
            for place, design in zip(line, columns, strict=True):
                scores = table.loc[(metric, design, "brain")]
                at = [rows[recipe] for recipe in scores.index]
                place.hlines(at, scores["ci_low"], scores["ci_high"], color=BRAIN, lw=1.4, alpha=0.5)
                place.plot(scores["value"], at, "o", color=BRAIN, ms=5)
                place.axvline(table.loc[(metric, design, "category"), "value"].median(), color=MUTED, lw=1, ls="--")
                place.set_title(design if metric == next(iter(asked)) else "", fontsize=10, fontweight="bold")
                place.set_xlabel(title, fontsize=8.5)
                place.tick_params(labelsize=8)
                place.grid(axis="x", lw=0.5, alpha=0.5)
            line[0].set_yticks(range(len(rows)), list(rows))
    save(figure, "bench_designs")


# -- pictures --------------------------------------------------------------------------------------------------------------


def pictures(columns: int = 12, rows: int = 3, side: int = 100) -> None:
    """The first scenes of world 0; none is left out."""
    painted = scenes.render_many(0, np.arange(columns * rows), side)
    sheet = Image.fromarray(figures.mosaic(np.split(painted, rows), gap=6))
    white = Image.new("RGB", sheet.size, "white")
    white.paste(sheet, mask=sheet.getchannel("A"))
    write(white, "insilico-pictures")


def captions(indices: tuple[int, ...] = (0, 1, 2)) -> None:
    """Scenes with their five captions, and which of these are to be trusted."""
    with figures.style():
        figure = figures._figure(10.0, 1.9)
        figure.set_layout_engine("none")
        for column, index in enumerate(indices):
            left = 0.003 + column * 0.338
            axes = figure.add_axes((left, 0.16, 0.13, 0.7))
            axes.imshow(scenes.render(0, index, 160))
            axes.set_axis_off()
            axes.set_anchor("NW")
            figure.text(left, 0.975, ", ".join(scenes.describe(0, index).labels), fontsize=7, color=MUTED, va="top")
            y = 0.87
            for text, truth in zip(scenes.captions(0, index), scenes.caption_truth(0, index), strict=True):
                colour = {"good": BRAIN, "vague": MUTED, "wrong": CEILING}[truth]
                figure.text(left + 0.135, y, truth, fontsize=6.4, fontweight="bold", color=colour, va="top")
                lines = textwrap.wrap(text, 29)
                figure.text(left + 0.17, y, "\n".join(lines), fontsize=6.4, color=INK, va="top", linespacing=1.15)
                y -= 0.04 + 0.058 * len(lines)
    save(figure, "insilico-captions", dpi=170)


# -- brains ----------------------------------------------------------------------------------------------------------------


def trials_of(study: Simulation) -> Trials:
    """What the maps are drawn from."""
    return Trials(study.betas, study.trials, study.voxels, "sub-01")


def cortex(study: Simulation) -> None:
    """The four flat maps of a person with all voxels."""
    trials = trials_of(study)
    with figures.style():
        figure = figures._figure(10.0, 7.4)
        figure.set_layout_engine("none")
        for i, kind in enumerate(flatmap.map_kinds(trials.voxels)):
            axes = figure.add_axes((0.01 + 0.5 * (i % 2), 0.505 - 0.5 * (i // 2), 0.48, 0.44))
            flatmap.surface(axes, trials, kind)
            axes.set_title(flatmap.TITLES[kind], y=1.03)
    save(figure, "insilico-cortex", dpi=110)


def tuning(study: Simulation) -> None:
    """Mean noiseless response of each high-level area to pictures by their main thing, in units of the area's spread."""
    table = selectivity(study)
    with figures.style():
        figure = figures._figure(7.2, 2.9)
        axes = figure.add_subplot()
        top = float(np.abs(table.to_numpy()).max())
        image = axes.imshow(table, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
        axes.set_xticks(range(table.shape[1]), table.columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(table)), table.index)
        axes.tick_params(length=0, labelcolor=INK)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("response (standard deviations)")
    save(figure, "insilico-tuning")


def selectivity(study: Simulation):
    """(area, kind of thing): mean response to pictures whose main thing is of the kind, standardised over pictures."""
    import pandas as pd

    out = {}
    for area in ("LOC", "OFA", "FFA", "EBA", "VWFA", "PPA", "RSC"):
        inside = study.voxels[f"roi.{area}"].to_numpy() & (study.voxels["noise_ceiling"].to_numpy() > 0)
        mean = study.signal[:, inside].mean(axis=1)
        standard = (mean - mean.mean()) / mean.std()
        out[area] = pd.Series(standard).groupby(study.category).mean().reindex(scenes.THINGS)
    return pd.DataFrame(out).T


def measured_ceiling(study: Simulation) -> np.ndarray:
    """The ceiling of the mean of all showings as one would measure it, from their spread (Allen et al. 2022), (n_voxels,)."""
    table = study.trials
    betas = study.betas.astype(np.float64)
    for session in np.unique(table["session"]):
        here = (table["session"] == session).to_numpy()
        betas[here] -= betas[here].mean(axis=0)
        betas[here] /= betas[here].std(axis=0)
    order = np.lexsort((table["repeat"], table["stimulus"]))
    shown = betas[order].reshape(len(study.ids), -1, betas.shape[1])
    noise = shown.var(axis=1, ddof=1).mean(axis=0)
    signal = np.maximum(shown.reshape(-1, betas.shape[1]).var(axis=0) - noise, 0)
    return signal / (signal + noise / shown.shape[1])


def ceilings(study: Simulation) -> None:
    """Closed form against measurement, and two scanners."""
    known, measured = study.subject.ceiling(3, study.signal), measured_ceiling(study)
    with figures.style():
        figure = figures._figure(9.0, 3.1)
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        left.plot([0, 0.8], [0, 0.8], color=CEILING, linewidth=1)
        left.scatter(known, measured, s=3, color=BRAIN, alpha=0.35, linewidth=0, rasterized=True)
        left.set_xlabel("known, in closed form")
        left.set_ylabel("measured from three showings")
        left.set_title("Noise ceiling of the mean of three")
        bins = np.linspace(0, 1, 41)
        slow = Subject(study.subject.seed, len(study.voxels), "3t").voxels
        shown = (("7 T, one trial", study.voxels["noise_ceiling"], {"color": BRAIN, "alpha": 0.9}),
                 ("7 T, mean of three", study.voxels["noise_ceiling_3"], {"color": BRAIN, "alpha": 0.3}),
                 ("3 T, one trial", slow["noise_ceiling"], {"color": CEILING, "histtype": "step", "linewidth": 1.4}))  # fmt: skip
        for label, values, look in shown:
            part = values[values > 0]
            right.hist(part, bins, label=f"{label} (median {part.median():.2f})", **look)
        right.set_xlabel("noise ceiling, share of variance")
        right.set_ylabel("voxels with signal")
        right.set_title("All voxels of one person")
        right.legend()
    save(figure, "insilico-ceilings")


# -- scanner runs --------------------------------------------------------------------------------------------------------


def bold() -> None:
    """What one voxel's run is the sum of."""
    study = make(n_train=200, n_test=20, n_voxels=500)
    run = scan(study)[0]
    voxel = int(study.voxels["ncsnr"].argmax())
    parts = {"evoked": run.evoked[:, voxel], "noise": run.noise[:, voxel]}
    parts |= {
        name: getattr(run, name)[0] @ getattr(run, name)[1][:, voxel] for name in ("drift", "physiology", "motion")
    }
    total = sum(parts.values())
    seconds = np.arange(len(run)) * run.tr_s
    with figures.style():
        figure = figures._figure(9.0, 3.6)
        axes = figure.add_subplot()
        places = {"measured": 0, "evoked": -10.5, "noise": -18, "drift": -23, "physiology": -27, "motion": -30.5}
        for name, series in {"measured": total, **parts}.items():
            strong = name == "measured"
            colour = INK if strong else BRAIN if name == "evoked" else CEILING
            offset = places[name]
            axes.plot(seconds, series - series.mean() + offset, color=colour, linewidth=1.1 if strong else 0.9)
            axes.text(-4, offset, name, ha="right", va="center", color=colour, fontweight="bold" if strong else None)
        low = -34.5
        axes.vlines(run.trials["onset_s"], low, low + 1.2, color=MUTED, linewidth=0.7)
        axes.text(-4, low + 0.6, "pictures", ha="right", va="center", color=MUTED)
        axes.plot([seconds[-1] + 4] * 2, [0, 5], color=INK, linewidth=1.2, clip_on=False)
        axes.text(seconds[-1] + 6, 2.5, "5 %", va="center")
        axes.set_xlim(0, seconds[-1])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("seconds")
    save(figure, "insilico-bold")


# -- numbers -------------------------------------------------------------------------------------------------------------


def say(what: str, value: str) -> None:
    """One line of `numbers`."""
    sys.stdout.write(f"{what:<78} {value}\n")


def fraction_of_best(run: Path) -> None:
    """The demo's decoder and the best linear one, in the same measure on the same pictures."""
    from phosphene.lab.reader import InSilicoOptions, simulation

    study = simulation(InSilicoOptions(n_train=2000, n_voxels=2000))
    test = study.design.is_test
    pixels = study.images.reshape(len(study.images), -1) / 255
    best = study.subject.bayes_linear(study.signal[~test], pixels[~test], 3)
    bounds = best.expected(study.signal[test], pixels[test]).correlation, best.learned.correlation
    seen, decoded = (np.load(run / "decoded" / "test" / name / "pixels.npy") for name in ("seen", "brain"))
    seen, decoded = (a.reshape(len(a), -1).astype(np.float64) for a in (seen, decoded))
    seen, decoded = ((a - a.mean(axis=0)) / a.std(axis=0) for a in (seen, decoded))
    say("demo, correlation of each pixel over the test pictures, mean over pixels", f"{(seen * decoded).mean():.3f}")
    say("best linear decoder, the same: test pictures, pictures learned from",
        f"{bounds[0].mean():.3f}, {bounds[1].mean():.3f}")  # fmt: skip


def numbers(run: Path) -> None:
    """Everything docs/insilico.md states as measured."""
    start = time.perf_counter()
    big = make("nsd", n_train=9500, n_test=500, n_voxels=5000)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    say(
        f"a study of {len(big.ids):,} scenes, {len(big.trials):,} trials, 5,000 voxels", f"{took:.0f} s, {peak:.1f} GiB"
    )
    start = time.perf_counter()
    scenes.render_many(1, np.arange(2000))
    say("scenes painted per second, 32 pixels", f"{2000 / (time.perf_counter() - start):.0f}")
    del big
    fraction_of_best(run)
    for snr in ("nsd", "3t"):
        voxels = Subject(1, None, snr).voxels
        part = voxels[voxels["ncsnr"] > 0]
        say(f"{snr}: voxels, with signal, median ncsnr, ceiling of one trial, of three",
            f"{len(voxels)}, {len(part)}, {part['ncsnr'].median():.2f}, {part['noise_ceiling'].median():.2f}, "
            f"{part['noise_ceiling_3'].median():.2f}")  # fmt: skip
    study = repeated()
    known, measured = study.subject.ceiling(3, study.signal), measured_ceiling(study)
    say(f"closed-form and measured ceilings, {len(study.ids)} pictures x 3: r, mean difference, mean absolute",
        f"{np.corrcoef(known, measured)[0, 1]:.4f}, {np.mean(measured - known):+.4f}, "
        f"{np.mean(np.abs(measured - known)):.4f}")  # fmt: skip
    table = selectivity(study)
    likes = {name: AREAS[name].prefers for name in table.index if AREAS[name].prefers}
    say(
        "areas whose mean response is largest for the kind they prefer",
        f"{sum(table.loc[n].idxmax() == k for n, k in likes.items())} of {len(likes)}",
    )
    truth = np.concatenate([np.array(t) for t in (scenes.caption_truth(0, i) for i in range(500))])
    say(
        "captions of 500 scenes: good, vague, wrong",
        ", ".join(f"{np.mean(truth == k):.2f}" for k in ("good", "vague", "wrong")),
    )
    for name in ("nsd", "god", "bold5000", "clusters"):
        s = make(name)
        test = s.design.is_test
        pixels = s.images.reshape(len(s.images), -1) / 255
        scores = []
        for repeats in (1, int(s.design.shown[test].max())):
            best = s.subject.bayes_linear(s.signal[~test], pixels[~test], repeats)
            fresh, learned = best.expected(s.signal[test], pixels[test]), best.learned
            scores.append(f"{repeats}: {fresh.correlation.mean():.2f}, {learned.correlation.mean():.2f}")
        say(f"{name}: trials; best linear decoder of pixels (trials averaged: test, learned)",
            f"{len(s.trials)}; {'; '.join(scores)}")  # fmt: skip


# -- checks ----------------------------------------------------------------------------------------------------------------


def checks(seed: int = 0) -> None:
    """What B1, L2, B7 and B8 look at, in an honest run and in one with the fault that they are for."""
    root = str(Path(__file__).resolve().parents[1])
    if root not in sys.path:
        sys.path.append(root)
    from benchmarks.dishonest import registered
    from benchmarks.known_answers import VIOLATIONS, Lab

    from phosphene import flow
    from phosphene.metrics.identification import rank_matrix, similarity

    with tempfile.TemporaryDirectory() as folder, figures.style():
        lab = Lab(seed, Path(folder))
        with registered(lab.study):
            lab.clean()
            for title in ("off-by-one order of test pictures", "test-set z-scoring", "a collapsed predictor"):
                next(v for v in VIOLATIONS if v.title == title).plant(lab)
            lab.judged("naming", recipe="naming")
            names = ("clean", "off-by-one", "batch_scored", "collapsed", "naming")
            runs = {name: flow.open_run(Path(folder) / name / "run") for name in names}

            def pictures_of(name: str, source: str) -> np.ndarray:
                found = runs[name].folder.pixels("test", source)
                return found.reshape(len(found), -1).astype(float)

            figure = figures._figure(9.6, 2.7)
            order, company, spread, naming = figure.subplots(1, 4)
            reach = np.arange(-10, 11)
            for name, colour, label in (("clean", BRAIN, "honest"), ("off-by-one", FAULT, "off by one")):
                ranks = rank_matrix(similarity(pictures_of(name, "brain"), pictures_of(name, "seen")))
                order.plot(reach, [np.diagonal(ranks, k).mean() for k in reach], color=colour, label=label)
            order.axhline(0.5, color=MUTED, lw=0.8, ls=":")
            order.set(xlabel="truths shifted by", ylabel="two-way identification")

            for name, colour, label in (("clean", BRAIN, "honest"), ("batch_scored", FAULT, "z-scored on test")):
                recipe, test = runs[name].recipe(0), runs[name].sides(0)[1].average_repeats()
                together, few = (recipe.decode(t).pixels[:8].ravel() for t in (test, test.take(np.arange(8))))
                company.plot(together[::9], few[::9], ".", color=colour, ms=2.5, label=label)
            company.set(xlabel="pixel, decoded with 60", ylabel="decoded with 8")

            for name, colour, label in (("clean", BRAIN, "honest"), ("collapsed", FAULT, "collapsed")):
                values = (
                    np.linalg.svd(pictures_of(name, "brain") - pictures_of(name, "brain").mean(axis=0))[1][:12] ** 2
                )
                spread.plot(range(1, 13), values / values.sum(), color=colour, label=label)
            values = (
                np.linalg.svd(pictures_of("clean", "seen") - pictures_of("clean", "seen").mean(axis=0))[1][:12] ** 2
            )
            spread.plot(range(1, 13), values / values.sum(), color=MUTED, ls="--", label="truths")
            spread.set(xlabel="dimension", ylabel="share of variance", yscale="log")
            spread.set_ylim(1e-3, 1.5)
            spread.set_yticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"])
            spread.minorticks_off()

            for at, (name, colour) in enumerate((("clean", BRAIN), ("naming", FAULT))):
                scores = runs[name].folder.table("scores.csv")
                scores = scores[scores["input"] == "brain"].set_index("metric")
                rows = [scores.loc[f"two_way{w}.pixels"] for w in ("", "_within_class")]
                middle = np.array([r["value"] for r in rows])
                error = np.abs(np.array([[r["ci_low"], r["ci_high"]] for r in rows]).T - middle)
                naming.errorbar(np.arange(2) + 0.14 * (2 * at - 1), middle, error, fmt="o", color=colour, ms=4,
                                label=("honest", "names the category")[at])  # fmt: skip
            naming.axhline(0.5, color=MUTED, lw=0.8, ls=":")
            naming.set(ylabel="two-way identification", xlim=(-0.5, 1.5))
            naming.set_xticks([0, 1], ["all pictures", "same category"])
            naming.set_ylim(0.4, 1.12)
            asked = ("B1: the true order?", "L2: other rows?", "B7: all dimensions?", "B8: only the category?")
            for axes, question in zip((order, company, spread, naming), asked, strict=True):
                axes.set_title(question, fontsize=8)
                axes.legend(frameon=False, fontsize=6, loc="lower left" if axes is order else "best")
            save(figure, "checks")


def repeated() -> Simulation:
    """A person with every voxel who saw all pictures three times."""
    return make("nsd", n_train=900, n_test=100, n_voxels=None, train_repeats=3)


def main(arguments: list[str]) -> None:
    """Do what is asked for."""
    if arguments[:1] == ["demo"] and len(arguments) == 2:
        demo(Path(arguments[1]))
    elif arguments[:1] == ["beside"] and len(arguments) > 3:
        beside(arguments[1], arguments[2:])
    elif arguments[:1] == ["designs"] and len(arguments) == 2:
        designs(Path(arguments[1]))
    elif arguments == ["insilico"]:
        pictures()
        captions()
        study = repeated()
        cortex(study)
        tuning(study)
        ceilings(study)
        bold()
    elif arguments == ["checks"]:
        checks()
    elif arguments[:1] == ["numbers"] and len(arguments) == 2:
        numbers(Path(arguments[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
