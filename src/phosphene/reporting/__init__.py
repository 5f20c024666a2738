"""Reporting: every sentence, figure and page of the project. Reads run folders and what analyses found.

``report(run)`` writes one self-contained HTML page about a run, or one that compares several. Which file does what:

=====================  ==================================================================================
``html``               the verb `report`: a page from run folders
``contents``           one run as a page reads it: tables, pictures, gaps
``tables``             score tables of a page
``run_figures``        which figures a run has, with captions
``image_grid``         pictures of a page as tiles
``run_comparison``     several runs beside each other, for the page and the terminal
``conclusion``         the sentences at the end of an evaluation
``analysis_sections``  analyses as filed, for the page
``presentation``       which file turns the findings of an analysis into sentences and figures
``*_section``          that file, one per analysis
``sweep_page``         the page of a sweep, from ``sweep_results``; ``sweep_figure`` its figure
``betas_page``         the page about single-trial betas; ``betas_figures`` its figures
``describe``           what a person sees of a data set; ``contact_sheet``, ``atlas`` and ``flatmap`` its pictures
``near_copies``        the sheet of test pictures with near copies in training
``figures``            figures of scores and voxels: arrays in, a matplotlib Figure out
``drawing``            style, colours, rows of pictures, PNG, SVG and GIF: what all figures share
``words``              names of metrics and inputs, numbers as text, what must not be shown
``wording``            pieces of sentences about analyses
=====================  ==================================================================================
"""

from __future__ import annotations

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
