"""Models that run without torch or Lexel: as two ONNX files, and as a page that runs them in a browser."""

from lexel.export.convert import Graphs, Verdict, convert
from lexel.export.web import Page, Photo, export_page, page_of
from lexel.export.write import Exported, export

__all__ = ["Exported", "Graphs", "Page", "Photo", "Verdict", "convert", "export", "export_page", "page_of"]
