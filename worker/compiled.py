"""The compiled core (worker/_core), where it was built and is wanted.

It is optional, and a leaf: arrays and bytes in, arrays out. Each part of it has a twin in Python that gives the same,
to the bit; tests hold the two equal.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Literal

from worker.errors import SettingsError

Choice = Literal["auto", "compiled", "python"]
MODULE = "worker._core.columns"

_wanted = True


def built() -> bool:
    return _loaded()[0] is not None


def choose(how: Choice) -> None:
    """For the whole process, before anything asks for the core. Raises SettingsError."""
    global _wanted
    module, why = _loaded()
    if how == "compiled" and module is None:
        raise SettingsError(
            f"the compiled core is asked for and {why}: install with a Rust toolchain at hand (rustup.rs), or "
            "leave ZMU_CORE at auto"
        )
    _wanted = how != "python"


def missed() -> str:
    """Why Python works though the core is wanted; empty where it does not, or none is wanted."""
    module, why = _loaded()
    return f"the compiled core {why}" if _wanted and module is None else ""


def core() -> Any | None:
    """The extension module; None where the twins in Python are to do the work."""
    return _loaded()[0] if _wanted else None


@cache
def _loaded() -> tuple[Any | None, str]:
    """The module; or None, and why."""
    try:
        return import_module(MODULE), ""
    except ModuleNotFoundError:
        return None, "was not built"
    except ImportError as error:        # of another machine, or another Python
        return None, f"cannot be loaded ({error})"


def kind() -> Literal["compiled", "python"]:
    """Which of the two works."""
    return "python" if core() is None else "compiled"
