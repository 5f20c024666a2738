"""Report: one page that shows what was decoded, how well, and whether to believe it. Reads run folders, nothing else.

- ``report(run)``: one self-contained HTML page, or a comparison of several runs
- ``figures``: the figures of the page, each a function returning a matplotlib Figure
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
