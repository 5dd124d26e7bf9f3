"""What a container image holds, as a CycloneDX document: Python's packages, the core's crates, Debian's packages.

    python sbom.py --site /opt/zmu/lib/python3.12/site-packages --crates Cargo.lock --debian /var/lib/dpkg/status

The image build runs it (Dockerfile) with nothing but Python's own library. Parts that are not there are left out. The
same content gives the same document.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]


def python_packages(site: Path) -> Iterator[tuple[Component, list[str]]]:
    """Each with the names that it requires, extras left out."""
    for found in importlib.metadata.distributions(path=[str(site)]):
        name = normal(found.metadata["Name"])
        component: Component = {"type": "library", "name": name, "version": found.version}
        component["purl"] = component["bom-ref"] = f"pkg:pypi/{name}@{quote(found.version)}"
        licences = found.metadata.get_all("License-Expression") or found.metadata.get_all("License")
        if licences and licences[0]:
            component["licenses"] = [{"license": {"name": licences[0].splitlines()[0][:200]}}]
        needs = [need for need in found.requires or [] if "extra ==" not in need]
        yield component, [normal(re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0]) for need in needs]


def crates(lock: Path) -> Iterator[Component]:
    for found in tomllib.loads(lock.read_text())["package"]:
        purl = f"pkg:cargo/{found['name']}@{quote(found['version'])}"
        hashes = [{"alg": "SHA-256", "content": found["checksum"]}] if "checksum" in found else []
        yield {"type": "library", "name": found["name"], "version": found["version"], "purl": purl, "bom-ref": purl,
               "hashes": hashes}


def debian_packages(status: Path) -> Iterator[Component]:
    for paragraph in status.read_text(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.+)$", paragraph, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?arch={fields['Architecture']}"
            yield {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def document(site: Path, lock: Path, status: Path) -> dict[str, Any]:
    """CycloneDX 1.6. Raises LookupError where zmu itself is not among the packages."""
    packages = sorted(python_packages(site), key=lambda found: str(found[0]["bom-ref"]))
    refs = {component["name"]: component["bom-ref"] for component, _ in packages}
    own = next((component for component, _ in packages if component["name"] == "zmu"), None)
    if own is None:
        raise LookupError(f"zmu is not installed in {site}")
    python: Component = {"type": "platform", "name": "python", "version": platform.python_version()}
    python["bom-ref"] = f"pkg:generic/python@{python['version']}"
    components = [python, *(component for component, _ in packages if component is not own)]
    components += sorted(crates(lock), key=lambda crate: str(crate["bom-ref"])) if lock.exists() else []
    components += sorted(debian_packages(status), key=lambda one: str(one["bom-ref"])) if status.exists() else []
    graph = [
        {"ref": component["bom-ref"], "dependsOn": sorted({refs[need] for need in needs if need in refs})}
        for component, needs in packages
    ]
    content = json.dumps([components, graph])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"component": own | {"type": "application"}},
        "components": components,
        "dependencies": graph,
    }


def normal(name: str) -> str:
    """As PyPI compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python sbom.py", description="This image as CycloneDX, to stdout.")
    parser.add_argument("--site", type=Path, required=True, help="folder of Python's packages")
    parser.add_argument("--crates", type=Path, default=Path("Cargo.lock"), help="of the compiled core (%(default)s)")
    parser.add_argument("--debian", type=Path, default=Path("/var/lib/dpkg/status"), help="%(default)s")
    args = parser.parse_args(argv)
    try:
        json.dump(document(args.site, args.crates, args.debian), sys.stdout, indent=1)
    except LookupError as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
