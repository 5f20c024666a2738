"""What `phosphene.score` gives: a table that prints in a terminal and in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import pandas as pd

from phosphene.errors import did_you_mean
from phosphene.flow.show import score_lines
from phosphene.io.run_folder import RunFolder


@dataclass(frozen=True, eq=False)
class ScoredPictures:
    """What `score` found; printed as a table.

    Attributes
    ----------
    scores : DataFrame
        rows as in scores.csv: split, input, metric, value, ci_low, ci_high, chance, p, n, setting
    verdicts : DataFrame
        rows as in validity.csv: id, verdict, value, reason, title, waiver
    conclusions : tuple of str
        what can be said, one sentence each
    skipped : DataFrame
        input, metric, reason of what could not be computed
    published : DataFrame
        published numbers, and why they may not be compared
    memorised : DataFrame or None
        each decoded picture beside its truth and the training picture most like it; None without training pictures
    folder : RunFolder or None
        the run written, which `phosphene.report` shows
    """

    scores: pd.DataFrame
    verdicts: pd.DataFrame
    conclusions: tuple[str, ...]
    skipped: pd.DataFrame
    published: pd.DataFrame
    memorised: pd.DataFrame | None = None
    folder: RunFolder | None = None

    def __getitem__(self, metric: str) -> float:
        """Value of a metric of the decoded pictures, by its full name such as ``two_way.pixels``."""
        brain = self.scores.loc[self.scores["input"] == "brain"]
        rows = brain.loc[brain["metric"] == metric, "value"]
        if rows.empty:
            raise KeyError(f"there is no score {metric!r}. {did_you_mean(metric, brain['metric'])}")

        return float(rows.iloc[0])

    def __repr__(self) -> str:
        counts = [f"{n} {verdict}" for verdict, n in self.verdicts["verdict"].value_counts().items()]
        return "\n".join([*score_lines(self.scores), "", f"checks: {', '.join(counts)}", "", *self.conclusions])

    def _repr_html_(self) -> str:
        """Scores, verdicts and conclusions, for a notebook."""
        columns = ["metric", "value", "ci_low", "ci_high", "chance", "p", "n"]
        brain = self.scores.loc[self.scores["input"] == "brain", columns]
        verdicts = self.verdicts[["id", "title", "verdict", "reason"]]
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.conclusions)
        scores = brain.to_html(index=False, float_format=lambda value: f"{value:.3f}", na_rep="–", border=0)
        details = f"<details><summary>checks</summary>{verdicts.to_html(index=False, border=0)}</details>"

        return f"{scores}<ul>{sentences}</ul>{details}"
