"""Which program this is."""

from __future__ import annotations


def facts() -> dict[str, str]:
    """Versions of what matters to whoever reads a report of a fault."""
    from importlib.metadata import PackageNotFoundError, version

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "unknown"

    return {"version": of("zmu"), "torch": of("torch"), "kafka_python": of("kafka-python")}
