"""One page that shows a trained model: how good it is, what its codes look like, and how its training went.

A report is made in three steps, and a module imports only from those named before it:

- Read: `reading` reads the run's files, `measuring` encodes and decodes images with its model, `codes` and `board` find
  out what the codes look like and how the image changes when one is exchanged.
- Judge: `findings` turns the measurements into figures and a verdict.
- Paint: `sections` lists the page's sections and the data that their scripts need, `page` joins everything into one
  file. Templates, scripts and the style stand in `web/`.

A prior has a page of its own in the same style, `prior`: its bits beside those of simple codes, and samples as they
grow.

A model of vectors has one too, `ids`: the figures of the items' IDs, and the tree of their prefixes.

How to add a section, say `statistics`:

1. `sections.py`: put ``Section("statistics", ("statistics",), _statistics)`` into `SECTIONS`, where the page should
   show it, and write the function `_statistics`, which takes a `Report` and returns what the script needs. A section
   without a script is ``Section("statistics")``.
2. `web/statistics.html`: the section's markup. It can use `run`, `quantizer`, `source`, `measurement`, `findings` and
   `data.statistics`.
3. `web/statistics.js`: a plain script, which finds its data in `data.statistics`. All scripts of the page share one
   scope, and each may use those that run before it: `element`, `byId`, `counted`, `Chart`, `walkByKeys`.
"""

from lexel.report.ids import write_vector_report
from lexel.report.page import write_report
from lexel.report.prior import write_prior_report

__all__ = ["write_prior_report", "write_report", "write_vector_report"]
