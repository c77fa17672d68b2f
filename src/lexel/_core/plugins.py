"""Importing a user's own parts from a Python file that the command line names."""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

__all__ = ["import_plugin", "imported_plugins"]

_imported: dict[str, Path] = {}  # by the name of the module


def import_plugin(path: Path) -> str:
    """Import a Python file and return the name of its module.

    From then on configurations can name the file's classes that derive from Lexel's (`Quantizer`, `Codebook`,
    `Estimator`, …): ``my_parts.MyQuantizer`` is a class of `my_parts.py`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a Python file, its name is that of another module, or importing it fails.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such plugin: {path}")
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier():
        raise ValueError(f"the plugin {path} must have a name that Python can import, such as my_parts.py")
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if file is not None and Path(file).resolve() == path.resolve():
        _imported[name] = path.resolve()
        return name
    known = None if loaded is not None else find_spec(name)
    if loaded is not None or (known is not None and known.origin != str(path.resolve())):
        raise ValueError(f"the plugin {path} has the name of another module, {name}: give it one of its own")
    spec = spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"the plugin {path} cannot be imported")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's file may raise
        del sys.modules[name]
        raise ValueError(f"the plugin {path} fails: {type(error).__name__}: {error}") from error
    _imported[name] = path.resolve()
    return name


def imported_plugins() -> list[Path]:
    """Return the files that were imported here: another process must import them before it reads their objects."""
    return [path for path in _imported.values() if path.is_file()]
