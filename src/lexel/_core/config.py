"""Settings that can be written to a file and read back, so that no file can run code."""

from __future__ import annotations

import dataclasses
import inspect
import types
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Generic, TypeVar, Union, get_args, get_origin

from lexel._core.checks import argument_types, check_fields, checked
from lexel._core.errors import reason_of, sizes_named
from lexel._core.modules import WideBuffers

__all__ = ["Configurable", "Part", "from_config", "register", "registry", "to_config"]

_REGISTRY: dict[str, Callable[..., Configurable]] = {}

Function = TypeVar("Function", bound="Callable[..., Configurable]")


def register(function: Function) -> Function:
    """Register a function that builds something `Configurable`, so that configurations can name it like a class.

    It refuses arguments of other types than its annotations say.

    Example:
        >>> import lexel
        >>> lexel.from_config({"class_path": "lexel.presets.vqvae", "init_args": {"num_embeddings": 256}}).bits
        8.0
    """
    function = checked(function)
    _REGISTRY[f"{function.__module__}.{function.__name__}"] = function
    return function


def registry() -> dict[str, Callable[..., Configurable]]:
    """Return all that configurations may name, by name: classes that are not abstract, and registered functions."""
    return {name: make for name, make in _REGISTRY.items() if not inspect.isabstract(make)}


def class_path(cls: type[Configurable]) -> str:
    """Return the name under which a class stands in configuration files: ``lexel.EMA`` for what Lexel exports."""
    own = cls.__module__.startswith("lexel.")
    return f"{cls.exported_by}.{cls.__name__}" if own else f"{cls.__module__}.{cls.__qualname__}"


class Configurable(ABC):  # noqa: B024, each kind of settings has abstract methods of its own
    """A class whose constructor arguments are its whole configuration.

    A subclass stores each argument of its constructor as an attribute of the same name. In return `to_config` can write
    it, `from_config` can rebuild it, and the command line can build it by name. A subclass is registered when it is
    defined, outside Lexel too; one with abstract methods left cannot be named.

    An argument of another type than its annotation says is refused; a dataclass with a `__post_init__` of its own calls
    this one.

    Example:
        >>> import lexel
        >>> lexel.EMA(decay="0.9")
        Traceback (most recent call last):
        TypeError: EMA: decay must be a number, got '0.9'
    """

    exported_by: ClassVar[str] = "lexel"  # from where Lexel exports its own

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):  # a dataclass has none yet, and `__post_init__` checks its fields
            cls.__init__ = checked(cls.__init__, by_class=True)  # type: ignore[method-assign]
        if not cls.__name__.startswith("_"):
            _REGISTRY[class_path(cls)] = cls

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data: ``{"class_path": …, "init_args": {…}}``."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        # Not an AttributeError, which a module would answer with having no `config` at all.
        if absent := [name for name in names if not hasattr(self, name)]:
            raise TypeError(
                f"{type(self).__name__} must keep each argument of its constructor as an attribute of the same name, "
                f"so that it can be written down; it has no {', '.join(absent)}"
            )
        return {
            "class_path": class_path(type(self)),
            "init_args": {name: to_config(getattr(self, name)) for name in names},
        }


Settings_co = TypeVar("Settings_co", bound=Configurable, covariant=True)


class Part(WideBuffers, ABC, Generic[Settings_co]):
    """The module that the settings of a part build. It holds the settings and all state of the part.

    Attributes:
        settings: the frozen dataclass that built it; its configuration is this module's.
    """

    def __init__(self, settings: Settings_co) -> None:
        super().__init__()
        self.settings = settings

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the settings."""
        return self.settings.config

    def _get_name(self) -> str:
        return type(self.settings).__name__

    def extra_repr(self) -> str:
        """Show the settings."""
        return repr(self.settings).removeprefix(f"{self._get_name()}(").removesuffix(")")


def to_config(value: Any) -> Any:
    """Turn settings into plain data: numbers, strings, lists and dictionaries.

    Raises:
        TypeError: `value` holds something that is neither plain data nor `Configurable`.

    Example:
        >>> import lexel
        >>> lexel.to_config(lexel.EMA(decay=0.9))
        {'class_path': 'lexel.EMA', 'init_args': {'decay': 0.9, 'epsilon': 1e-05, 'warmup': 0.0}}
    """
    if isinstance(value, (Configurable, Part)):
        return value.config
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_config(item) for key, item in value.items()}
    if hasattr(value, "__iter__"):
        return [to_config(item) for item in value]
    raise TypeError(f"cannot write {value!r} ({type(value).__name__}) into a configuration")


def from_config(config: Any) -> Any:
    """Rebuild what `to_config` wrote, or call the preset that a configuration names.

    A configuration can name subclasses of `Configurable` and the functions of `lexel.presets` alone; nothing is
    imported.

    Raises:
        ValueError: `config` names an unknown class, or arguments with which it cannot be built.

    Example:
        >>> import lexel
        >>> lexel.from_config({"class_path": "lexel.EMA", "init_args": {"decay": 0.9}})
        EMA(decay=0.9, epsilon=1e-05, warmup=0.0)
    """
    try:
        return _built(config)
    except RecursionError as error:
        raise ValueError("a configuration is nested too deeply") from error


def _built(config: Any) -> Any:
    if isinstance(config, Mapping):
        if "class_path" not in config:
            return {key: _built(item) for key, item in config.items()}
        make = registry().get(str(config["class_path"]))
        if make is None:
            path = config["class_path"]
            if not str(path).startswith("lexel."):
                raise ValueError(
                    f"unknown class_path {path!r}: import the module that defines it first; "
                    "on the command line, name its file with --plugin"
                )
            raise ValueError(f"unknown class_path {path!r}; known: {', '.join(sorted(registry()))}")
        try:
            hints = _argument_types(make)
            built = {name: _built(item) for name, item in config.get("init_args", {}).items()}
            settings = {name: _with_tuples(item, hints.get(name)) for name, item in built.items()}
            with sizes_named(str(config["class_path"]), settings):
                return make(**settings)
        except (ValueError, RecursionError):
            raise
        except Exception as error:  # of arguments of a wrong type, or sizes beyond all memory
            raise ValueError(f"cannot build {config['class_path']}: {reason_of(error)}") from error
    if isinstance(config, list):
        return [_built(item) for item in config]
    return config


def _argument_types(make: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments that a class or function takes."""
    return argument_types(make.__init__ if isinstance(make, type) and not dataclasses.is_dataclass(make) else make)  # type: ignore[misc]


def _with_tuples(value: Any, hint: Any) -> Any:
    """Turn lists, which is what files have, into tuples where a type says so, at any depth."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Annotated, ClassVar):
        return _with_tuples(value, parts[0])
    if kind in (Union, types.UnionType):
        converted = [_with_tuples(value, part) for part in parts if part is not type(None)]
        # A type that takes the value as it is goes before one that wants a tuple.
        takes_list = any((get_origin(part) or part) is list for part in parts)
        return value if takes_list or value is None else next((new for new in converted if new != value), value)
    if isinstance(value, list):
        if kind is tuple:
            fixed = len(parts) == len(value) and parts[1:] != (...,)
            inner = parts if fixed else [parts[0] if parts[1:] == (...,) else None] * len(value)
            return tuple(_with_tuples(item, part) for item, part in zip(value, inner, strict=True))
        return [_with_tuples(item, parts[0] if len(parts) == 1 else None) for item in value]
    if isinstance(value, dict):
        return {key: _with_tuples(item, parts[1] if len(parts) == 2 else None) for key, item in value.items()}
    return value
