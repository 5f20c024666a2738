"""digits69: handwritten sixes and nines, early visual cortex of one person, 90 training and 10 test pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from phosphene.data.findings import Finding
from phosphene.data.pairs import PairFile, PairOptions
from phosphene.data.reader import find_file

FILE = "digit69_28x28.mat"
SHA256 = "44513e09ad2398566aedd550088b817a3c0bf9cd7873f87078ecd7fdf170b22d"


class Digits69Options(PairOptions):
    """The pair file's options with what is known of this one."""

    image_shape: tuple[int, ...] | None = Field((28, 28), description="height and width of a picture")
    pixel_order: Literal["C", "F"] | None = Field("F", description="pictures are stored column by column")
    label_names: dict[str, str] = Field({"1": "six", "2": "nine"}, description="label value to name")


class Digits69(PairFile):
    """Reader of ``digit69_28x28.mat``."""

    title: ClassVar[str] = "Handwritten 6 and 9, V1-V3 of one person, 100 pictures of 28 x 28"
    citation: ClassVar[str] = (
        "van Gerven, de Lange, Heskes (2010), Neural decoding with hierarchical generative models, Neural Computation "
        "22(12), 3127-3142; file as used by Du, Du, He (2017), IJCNN."
    )
    licence: ClassVar[str] = "none stated; for your own tests, not for redistribution"
    url: ClassVar[str] = "https://github.com/ChangdeDu/DGMM"
    files: ClassVar[str] = f"digits69/{FILE}"
    options: ClassVar[type[PairOptions]] = Digits69Options

    def find(self, root: Path) -> Path:
        """The file below `root`, which may be the data set's own folder or the one that holds all."""
        return find_file(root, (f"digits69/{FILE}", FILE), "digits69")

    def name(self, path: Path) -> str:
        """digits69, whatever the file is called.

        Parameters
        ----------
        path : Path
            the file
        """
        return "digits69"

    def check(self, path: Path, options: PairOptions) -> list[Finding]:
        """Checksum, and the counts of the publication.

        Parameters
        ----------
        path : Path
            the file
        options : PairOptions
            which array is what
        """
        findings = super().check(path, options)
        if findings[0].level == "problem":
            return findings

        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if digest == SHA256:
            findings.append(Finding("ok", "checksum", "the bytes are those of the public file."))
        else:  # a note alone: saving the file again in MATLAB changes its bytes and none of its numbers
            findings.append(
                Finding(
                    "note",
                    "checksum",
                    f"SHA-256 of {Path(path).name} is {digest[:12]}..., the public file has {SHA256[:12]}...",
                    "Scores may not compare with published ones; fetch the public file to be sure.",
                )
            )

        trials = self.load(path, options).trials()
        sides = trials.table["side"].value_counts()
        counts = (int(sides.get("train") or 0), int(sides.get("test") or 0), trials.n_voxels)
        detail = f"{counts[0]} training rows, {counts[1]} test rows, {counts[2]} voxels"
        if counts == (90, 10, 3092):
            findings.append(Finding("ok", "counts", f"{detail}, as published."))
        else:
            detail = f"{detail}; published: 90, 10, 3092."
            findings.append(Finding("problem", "counts", detail, "Fetch the public file again."))

        return findings
