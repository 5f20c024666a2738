"""What in a data set could tell who a person is: before a report or a folder goes to somebody else.

Nothing here decides that data are anonymous; what it names is worth a look, what it does not may still identify.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from phosphene.data.findings import Finding
from phosphene.types import Dataset

_CODE = re.compile(
    r"(sub|subj|subject|s|p|pp|participant|csi|csi\d?|test|person|insilico)?[-_ ]?\w?\d{1,7}[-_]?\w{0,8}", re.IGNORECASE
)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w+")
_DATE = re.compile(
    r"(?<!\d)(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./](?:3[01]|[0-2]?\d)(?!\d)|(?<!\d)[0-3]?\d\.[01]?\d\.(?:19|20)\d\d(?!\d)"
)
_WORDS = re.compile(r"[^\W\d_]+(?:[ ._-]+[^\W\d_]+)+")
_COLUMN = re.compile(
    r"(?:^|[_ -])(?:first|last|full|family|given|sur)[_ -]?name|patient[_ -]?(?:name|id|birth)|birth|^dob$|e-?mail|phone|"
    r"address|initials|^mrn$|medical[_ -]?record|social[_ -]?security|postcode|^zip$",
    re.IGNORECASE,
)
_ANATOMY = re.compile(r"_(?:T1w|T2w|FLAIR|PDw|MP2RAGE|UNIT1)\.(?:nii|nii\.gz|mgz|img)$", re.IGNORECASE)
_DEFACED = re.compile(r"defac|pydeface|mideface|brain|skullstrip", re.IGNORECASE)


def telling_names(names: Iterable[str]) -> list[str]:
    """Subject names that look like more than a code: a first and a last name, a date, an e-mail address.

    Examples
    --------
    >>> telling_names(["sub-01", "CSI2", "subj05", "Ada Lovelace", "ann_1984-05-03", "a.b@c.org"])
    ['Ada Lovelace', 'ann_1984-05-03', 'a.b@c.org']
    """
    found = []
    for name in map(str, names):
        plain = name.strip()
        if _MAIL.search(plain) or _DATE.search(plain) or (not _CODE.fullmatch(plain) and _WORDS.fullmatch(plain)):
            found.append(name)

    return found


def telling_columns(columns: Iterable[str]) -> list[str]:
    """Columns whose name says that they identify a person.

    Examples
    --------
    >>> telling_columns(["stimulus", "patient_name", "date_of_birth", "run", "email"])
    ['patient_name', 'date_of_birth', 'email']
    """
    return [str(c) for c in columns if _COLUMN.search(str(c))]


def telling_anatomy(folder: str | Path) -> list[Path]:
    """Anatomical scans of a study that nothing says the face was taken out of.

    Parameters
    ----------
    folder : str or Path
        a study; up to 100,000 of its files are looked at by name

    Returns
    -------
    list of Path
        paths; neither the scan's own name nor a file beside it speaks of defacing
    """
    found = []
    for number, path in enumerate(Path(folder).rglob("*")):
        if number > 100_000:
            break
        if not _ANATOMY.search(path.name) or _DEFACED.search(path.name):
            continue
        if not any(_DEFACED.search(beside.name) for beside in path.parent.iterdir()):
            found.append(path)

    return sorted(found)


def check_privacy(dataset: Dataset, folder: str | Path | None = None) -> list[Finding]:
    """What of a data set to look at before anything of it is shared.

    Parameters
    ----------
    dataset : Dataset
        its subject names, columns of trials and description
    folder : str or Path, optional
        where it was read from, for anatomical scans
    """
    out = []
    if names := telling_names(dataset.subjects):
        detail = f"the subject name {names[0]!r} looks like more than a code; it stands in every run and report."
        out.append(Finding("note", "privacy", detail, "Name people by codes such as sub-01 before you share anything."))

    columns = {c for name in list(dataset.subjects)[:3] for c in telling_columns(dataset.trials(name).table.columns)}
    if columns:
        detail = f"the trials have the columns {', '.join(sorted(columns))}, which may say who somebody is."
        out.append(Finding("note", "privacy", detail, "Take them out before you share anything."))

    if folder is not None and Path(folder).is_dir():
        scans = telling_anatomy(folder)
    else:
        scans = []

    if scans:
        detail = f"{len(scans)} anatomical scans may show a face, first {scans[0]}; nothing beside them says they were defaced."
        out.append(
            Finding("note", "privacy", detail, "Deface them before the folder is shared; reports never hold scans.")
        )

    return out
