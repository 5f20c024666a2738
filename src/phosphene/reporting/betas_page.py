"""A page about single-trial betas: is the design sound, what was chosen for each voxel, are the betas reliable?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from phosphene.betas.betas_folder import FOUND
from phosphene.data import read_dataset
from phosphene.errors import DataError, PhospheneError
from phosphene.io import atomic
from phosphene.io.npz_file import read_npz
from phosphene.reporting import betas_figures as draw
from phosphene.reporting.html import render
from phosphene.reporting.plain_words import number, whole
from phosphene.reporting.run_figures import figure_values
from phosphene.reporting.wording import capital
from phosphene.types import Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = {
    "lsa": "one model of all trials, one response for all voxels (LSA)",
    "lss": "each trial in a model of its own, one response for all voxels (LSS)",
    "b": "a response chosen for each voxel (type B)",
    "c": "a response chosen for each voxel, noise components removed (type C)",
    "d": "a response chosen for each voxel, noise components removed, ridge of its own strength (type D)",
}
_VERDICT = {"ok": "pass", "note": "flag", "problem": "fail"}
_SHARE_CLEAR = 0.1  # of reliable voxels, where chance gives 0.05
_SHARE_DOUBTFUL = 0.06
_HAS_CHOSEN_RESPONSES = ("b", "c", "d")
_FRACTIONS = np.arange(1, 21) / 20  # of the length of least squares, as the ridge of the betas tries them
_BY_COLUMN = "a column of the table"


def betas_report(folder: str | Path, subject: str | None = None, out: str | Path | None = None) -> Path:
    """Write one self-contained HTML page about betas that :func:`phosphene.betas.betas_from_folder` made.

    Parameters
    ----------
    folder : str or Path
        The data set's.
    subject : str, optional
        Of it; the first by default.
    out : str or Path, optional
        File to write; ``report.html`` in the folder by default.

    Returns
    -------
    Path
        Path of the page.

    Raises
    ------
    DataError
        When the folder holds no betas, or what was found on the way is missing or damaged.
    """
    folder = Path(folder)
    dataset = read_dataset(folder)
    trials = dataset.trials(subject or next(iter(dataset.subjects)))
    found = _found(folder / FOUND)
    values = _page(trials, found)
    text = render(values, "betas.html")

    path = folder / "report.html"
    if out is not None:
        path = atomic.checked_path(out)

    atomic.write_text(path, text)
    return path


def _found(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except PhospheneError:
        raise
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read ({error}), so there is nothing to report. Run `phosphene betas` again with --replace."
        ) from error


def _page(trials: Trials, found: dict[str, np.ndarray]) -> dict[str, Any]:
    p = trials.provenance
    voxels = trials.voxels
    checks = []
    for level, what, detail, step in p.get("design_check", []):
        reason = f"{capital(detail)} {step}".strip()
        checks.append({"verdict": _VERDICT.get(level, "flag"), "title": what, "reason": reason})

    checks.append(_reliability_check(trials))
    counts = []
    for verdict in ("fail", "flag", "pass"):
        n = sum(check["verdict"] == verdict for check in checks)
        if n:
            counts.append((verdict, n))

    return {
        "title": f"Betas of {trials.subject}",
        "name": str(p.get("source", "")),
        "lede": _lede(trials),
        "conclusions": _conclusions(trials, found),
        "checks": checks,
        "counts": counts,
        "design": _design(trials, found),
        "chosen": _chosen(trials, found),
        "reliability": _reliability(trials, found),
        "carpet": _figure(
            lambda: draw.carpet(found["carpet"], found["carpet_ends_s"], found["carpet_onsets_s"]),
            "All runs side by side: each row a voxel, each column a volume, dark below and bright above its mean.",
            "Each row is the mean of a few voxels in standard deviations, drift removed, the most responsive above. Stripes "
            "through all rows are movement or breathing; the rhythm of the trials should show above only.",
        ),
        "options": [(k, _plain(v)) for k, v in dict(p.get("options", {})).items()],
        "facts": [
            ("unit", p.get("unit")), ("responses", p.get("hrf_library")), ("noise components", p.get("n_components")),
            ("voxels", whole(len(voxels))), ("trials", whole(len(trials))), ("ROIs", ", ".join(trials.rois) or "none"),
        ],
    }  # fmt: skip


def _lede(trials: Trials) -> str:
    p = trials.provenance
    kind = _KINDS.get(str(p.get("kind")), str(p.get("kind")))
    return (
        f"{whole(len(trials))} trials of {whole(len(trials.stimulus_ids))} stimuli in {whole(trials.n_voxels)} voxels, "
        f"from {whole(p.get('runs'))} runs: {kind}."
    )


def _reliability_check(trials: Trials) -> dict[str, str]:
    p = trials.provenance
    share = p.get("split_half_share")
    if share is None:
        return {
            "verdict": "flag", "title": "reliability",
            "reason": "Fewer than three stimuli were shown twice, so nothing here says whether the betas hold signal.",
        }  # fmt: skip

    reason = f"{share:.0%} of voxels answer to the same stimulus alike above chance; 5 % are expected by chance."
    if share > _SHARE_CLEAR:
        verdict = "pass"
    elif share > _SHARE_DOUBTFUL:
        verdict = "flag"
    else:
        verdict = "fail"

    return {"verdict": verdict, "title": "reliability", "reason": reason}


def _conclusions(trials: Trials, found: dict[str, np.ndarray]) -> list[str]:
    p = trials.provenance
    voxels = trials.voxels
    sentences = []
    moved_s = float(p.get("options", {}).get("onset_shift_s", 0))
    level = ""
    for check in p.get("design_check", []):
        if check[1] == "onsets":
            level = check[0]
            break

    if level == "problem":
        sentences.append(
            "Do not use these betas yet: the onsets of the files do not seem to be when something was shown."
        )
    elif moved_s:
        sentences.append(
            f"The onsets were moved by {shortest_signed(moved_s)} s, as the data ask; betas of the files' onsets would be poor."
        )
    else:
        sentences.append("The onsets agree with the data.")

    share = p.get("split_half_share")
    if share is not None:
        signal = "Hardly more signal than chance was found"
        if share > _SHARE_CLEAR:
            signal = "There is signal"

        sentences.append(f"{signal}: {share:.0%} of voxels are reliable, where chance gives 5 %.")

    if len(found["curve"]):
        n = p.get("n_components", 0)
        removed = f"{n} noise components shared by all voxels were"
        if n == 1:
            removed = "1 noise component shared by all voxels was"

        if n:
            sentences.append(f"{removed} removed, because that makes repeats agree better.")
        else:
            sentences.append("No noise component was removed: none made repeats agree better.")

    if "fraction" in voxels and np.ptp(voxels["fraction"]) > 0:
        fractions = voxels["fraction"].to_numpy(float)
        strong = float((fractions <= 0.5).mean())
        sentences.append(
            f"Ridge shrinks {strong:.0%} of voxels to half or less: those whose single trials are mostly noise."
        )

    return sentences


def _design(trials: Trials, found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    p = trials.provenance
    moved = float(p.get("options", {}).get("onset_shift_s", 0))
    onset_check = str(p.get("onset_check"))
    is_suspect = "too late" in onset_check or "too early" in onset_check
    shifts = found["shifts_s"]
    r2 = found["shift_r2"]

    best = None
    if is_suspect:
        best = float(shifts[r2.argmax()])

    of_runs = {}
    for name, values in found.items():
        if name.startswith("run_"):
            of_runs[name.removeprefix("run_")] = values

    table = pd.DataFrame(of_runs)
    out = [
        _figure(
            lambda: draw.timing(shifts, r2, best, moved), "Variance explained against the shift of all onsets.",
            "One regressor that only knows that something is shown, moved early and late. Its peak should stand near 0; "
            "a second or so off is people's responses, more is the clock.",
        ),
        _figure(
            lambda: draw.runs(table), "Length of every run and the span of its onsets.",
            f"Every run, from its first to its last onset. A beta's variance is {number(table['inflation'].median(), 1)} times "
            "that of a trial standing alone.",
        ),
    ]  # fmt: skip

    if len(found["repeats"]) > 1:
        out.append(_figure(
            lambda: draw.repeats(found["repeats"]), "How many stimuli were shown how often.",
            "Stimuli by how often they were shown. Only repeats tell signal from noise.",
        ))  # fmt: skip

    return out


def _chosen(trials: Trials, found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    p = trials.provenance
    voxels = trials.voxels
    out = []

    if len(found["curve"]) > 1:
        n = int(p.get("n_components", 0))
        out.append(_figure(
            lambda: draw.component_curve(found["curve"], n), "Gain in agreement of repeats against noise components.",
            "How much better betas of a stimulus agree with those in other runs when so many noise components are removed; the "
            "fewest that reach nearly the most are used.",
        ))  # fmt: skip

    if str(p.get("kind")) in _HAS_CHOSEN_RESPONSES:
        # A voxel that does not respond has a response chosen by noise.
        on_off_r2 = voxels["on_off_r2"].to_numpy()  # in its own precision, as the threshold is
        bar = p.get("on_off_threshold")
        if bar is None:
            bar = np.median(on_off_r2)

        bar = float(bar)
        numbers = voxels["hrf"].to_numpy(float)[on_off_r2 > bar]
        n_shapes, order = _library(p)
        responding = f"{whole(len(numbers))} voxels that respond (on-off R² over {number(bar, 1)} %)"
        caption = f"Which response explains most, in the {responding}."

        if order != _BY_COLUMN:
            caption += " A heap at either end means that responses are earlier or later than all of the library: "
            caption += "look at the onsets."

        out.append(_figure(
            lambda: draw.histogram(numbers, f"response ({order})", np.arange(n_shapes)), "How many voxels have each response.",
            caption,
        ))  # fmt: skip

    if "fraction" in voxels:
        out.append(_figure(
            lambda: draw.histogram(voxels["fraction"].to_numpy(float), "length kept, share of least squares", _FRACTIONS),
            "How many voxels have each fraction of ridge.",
            "How far each voxel's betas are shrunk: 1 not at all. Cross-validated over runs.",
        ))  # fmt: skip

    out += _maps(voxels, p)
    return out


def _library(provenance: Mapping[str, Any]) -> tuple[int, str]:
    """How many responses there were to choose from, and what their numbers say."""
    peaks_s = np.array(provenance.get("hrf_peaks_s", range(20)))  # older folders were made with our own twenty
    if (np.diff(peaks_s) >= 0).all():
        return len(peaks_s), f"0 earliest, {len(peaks_s) - 1} latest"

    return len(peaks_s), _BY_COLUMN


def _maps(voxels: pd.DataFrame, provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    maps = _map(voxels, "on_off_r2", "on-off R², %", None, 'Variance that "something is shown" explains.')
    if str(provenance.get("kind")) in _HAS_CHOSEN_RESPONSES:
        n_shapes, order = _library(provenance)
        text = f"Response chosen ({order}): neighbours agree where there is signal, and differ where there is none."
        maps += _map(voxels, "hrf", "response", (0, n_shapes - 1), text)

    if "fraction" in voxels:
        maps += _map(voxels, "fraction", "fraction", (0, 1), "Fraction of ridge.")

    return maps


def _map(
    voxels: pd.DataFrame, column: str, label: str, limits: tuple[float, float] | None, text: str
) -> list[dict[str, Any]]:
    if not {"i", "j", "k"} <= set(voxels):
        return []

    values = voxels[column].to_numpy(float)
    return [_figure(lambda: draw.slices(voxels, values, label, limits), f"Map over slices. {text}", text)]


def _reliability(trials: Trials, found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    if "null_counts" not in found or "split_half" not in trials.voxels:
        return []

    p = trials.provenance
    r = trials.voxels["split_half"].to_numpy(float)
    return [
        _figure(
            lambda: draw.reliability(r, found["null_edges"], found["null_counts"], float(p["split_half_bar"])),
            "Split-half correlations of voxels beside those with shuffled stimuli.",
            f"Means of even against odd showings over {whole(p['split_half_stimuli'])} stimuli, each run centred: median r "
            f"{number(np.median(r))}, 90th percentile {number(np.quantile(r, 0.9))}; with stimuli shuffled 95 % stay below "
            f"{number(p['split_half_bar'])}.",
        ),
        *_map(trials.voxels, "split_half", "r", None, "Split-half reliability of every voxel."),
    ]


def _figure(make: Callable[[], Figure], alt: str, caption: str) -> dict[str, Any]:
    return figure_values(make(), alt, caption)


def shortest_signed(value: float) -> str:
    """Return a number with its sign, a true minus where it is negative.

    Other than `phosphene.reporting.plain_words.signed` it prints the shortest text of the number, as a person would type it.
    """
    return f"{value:+g}".replace("-", "−")


def _plain(value: Any) -> str:
    if value is None:
        return "automatic"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))

    return str(value)
