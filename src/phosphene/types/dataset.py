"""Splits and data sets: what trains, what tests, and all of it together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from phosphene.errors import DataError, SplitError, did_you_mean
from phosphene.types.identity import digest_of, few
from phosphene.types.stimuli import Stimuli
from phosphene.types.trials import Trials

_SHOWN = 4  # subjects, and splits, in a repr


@dataclass(frozen=True)
class Split:
    """Which stimuli (or trials) train and which test.

    Parameters
    ----------
    name : str
        such as "file", "nsd-982", "kfold:10/03"
    train, test : tuple of str
        ids, of stimuli unless `unit` is "trial"
    unit : {"stimulus", "trial"}, default "stimulus"
        a split by trial may show one picture on both sides; check S1 then fails it
    category_disjoint : bool, optional
        whether no test category is in training; None when categories are unknown
    note : str, default ""
        for people
    held_out : {"stimuli", "clusters"}, default "stimuli"
        what stands on one side as a whole: single stimuli with all their repeats, or whole clusters of pictures
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    unit: Literal["stimulus", "trial"] = "stimulus"
    category_disjoint: bool | None = None
    note: str = ""
    held_out: Literal["stimuli", "clusters"] = "stimuli"

    def __post_init__(self) -> None:
        # As texts, as the ids of stimuli are, or the number 12 and the text "12" would stand on both sides unseen.
        object.__setattr__(self, "train", tuple(map(str, self.train)))
        object.__setattr__(self, "test", tuple(map(str, self.test)))

        for side, ids in (("training", self.train), ("test", self.test)):
            if not ids:
                raise SplitError(
                    f"the {side} set of split '{self.name}' is empty; name at least one {self.unit} there."
                )

        # The one mistake that no score shows: it is refused where a split is made, so that none can exist.
        both = set(self.train) & set(self.test)
        if both:
            raise SplitError(
                f"{len(both)} {self.unit} ids of split '{self.name}' stand on both sides, first '{min(both)}'. "
                "Whatever is scored on them was seen in training; take them out of one side."
            )

    def __repr__(self) -> str:
        apart = ""
        if self.category_disjoint:
            apart = ", categories apart"
        return f"Split({self.name} by {self.unit}: {len(self.train)} to train, {len(self.test)} to test{apart})"

    @property
    def digest(self) -> str:
        """SHA-256 of both sides, independent of their order and of the split's name."""
        # By what is trained and tested on: renaming a split file must not make a new experiment of it.
        return digest_of(self.unit, sorted(self.train), sorted(self.test))

    def apply(self, trials: Trials) -> tuple[Trials, Trials]:
        """Training and test trials of one subject, as views.

        Parameters
        ----------
        trials : Trials
            of one subject of the data the split belongs to

        Returns
        -------
        training : Trials
            in the order of `trials`
        test : Trials
            in the order of `trials`

        Raises
        ------
        SplitError
            When a side is empty for this subject.
        """
        if self.unit == "stimulus":
            column = "stimulus"
        else:
            column = "trial"

        values = trials.table[column].astype(str)
        sides = []
        for side, ids in (("training", self.train), ("test", self.test)):
            # Ids the subject never saw are no mistake: one split serves subjects with different stimuli.
            mask = values.isin(ids).to_numpy()  # (n_trials,)
            if not mask.any():
                raise SplitError(
                    f"{trials.subject} has no trial in the {side} set of split '{self.name}' "
                    f"({len(ids)} {self.unit} ids, first '{ids[0]}'); the split belongs to other data."
                )

            sides.append(trials.take(mask))
        return sides[0], sides[1]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Stimuli, the trials of one or more subjects, and named splits.

    Parameters
    ----------
    name : str
        such as "digits69"
    stimuli : Stimuli
        every stimulus any subject saw
    subjects : mapping of str to Trials
        name to Trials; may be a lazy mapping
    splits : mapping of str to Split, optional
        name to Split; the first is the default
    about : mapping of str to str, optional
        title, citation, licence, note ... for people and for the report
    nouns : mapping of str to str, optional
        category to what a text calls it, where that is not its name: ``{"balloon": "hot air balloon"}``
    """

    name: str
    stimuli: Stimuli
    subjects: Mapping[str, Trials]
    splits: Mapping[str, Split] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    nouns: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Its parts, one a line; subjects that are opened when asked for stay closed."""
        # A lazy mapping opens a subject when asked for it, and printing a data set must not read gigabytes.
        parts = [f"Dataset({self.name}", repr(self.stimuli)]
        if isinstance(self.subjects, dict):
            parts += _first(self.subjects, "subjects")
        else:
            parts.append(f"subjects {few(self.subjects)}")

        parts += _first(self.splits, "splits")
        return "\n  ".join(parts) + ")"

    def trials(self, subject: str | None = None) -> Trials:
        """Trials of one subject.

        Parameters
        ----------
        subject : str, optional
            name; the only (or first) subject by default

        Returns
        -------
        Trials
            opened now where the subjects are a lazy mapping

        Raises
        ------
        DataError
            For an unknown name, with the nearest that exists.
        """
        if subject is None:
            subject = next(iter(self.subjects))

        if subject not in self.subjects:
            raise DataError(f"{self.name} has no subject '{subject}'. {did_you_mean(subject, self.subjects)}")
        return self.subjects[subject]

    def split(self, name: str | None = None) -> Split:
        """One of the splits that came with the data.

        Parameters
        ----------
        name : str, optional
            the first by default

        Returns
        -------
        Split
            as the data set defines it

        Raises
        ------
        SplitError
            For an unknown name, or when there are no splits at all.
        """
        if not self.splits:
            raise SplitError(f"{self.name} defines no split of its own; use kfold:K or a split file.")

        if name is None:
            name = next(iter(self.splits))

        if name not in self.splits:
            raise SplitError(
                f"{self.name} has no split '{name}'. {did_you_mean(name, self.splits)} "
                "kfold:K, cluster:K, holdout:SHARE and a path to a split file work too."
            )

        return self.splits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.subjects)


def _first(things: Mapping[str, Any], what: str) -> list[str]:
    """The first few of them, each in a line, and how many more there are."""
    lines = [repr(thing) for thing in list(things.values())[:_SHOWN]]
    if len(things) > _SHOWN:
        lines.append(f"... {len(things) - _SHOWN} more {what}")
    return lines
