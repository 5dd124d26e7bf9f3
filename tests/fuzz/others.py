"""What else comes from outside: settings, model versions, aliases, feedback, rows of state."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from tests import factory
from tests.fuzz.corpus import bent
from training.history.feedback import LABELS, Feedback
from worker import cli
from worker.errors import ModelError, SettingsError
from worker.models import artifact
from worker.models.registry import MANIFEST, REPORT, WEIGHTS, Registry
from worker.records import PlainRecord
from worker.settings import Settings
from worker.state.snapshots import DamagedRow, Row, Stand, pack, unpack

VALUES = (
    "", "0", "-1", "1e400", "nan", "inf", "null", "true", "[]", "{}", '["a"]', '["a","a"]', "[" * 3000, "é", "\udcff",
    "../x", "a" * 5000, "localhost:9092", "earliest", "exactly-once", "9" * 400, '{"pressure":[0,1]}', "s3://x", "0x10",
    "1_000", " 5 ", "SASL_SSL", '{"pressure":[null,"x"]}',
)
CPU = torch.device("cpu")


def settings(chance: random.Random) -> int:
    """Read, or refused by name; never anything else."""
    names = _variables()
    given = {chance.choice(names): chance.choice(VALUES) for _ in range(chance.choice((1, 2, 5)))}
    with _environment(given), tempfile.TemporaryDirectory() as folder:
        args = []
        if chance.random() < 0.3:
            file = Path(folder) / "zmu.toml"
            file.write_bytes(bent(chance, [b'[kafka]\nclient_id = "x"\n[input]\nfeatures = ["a", "b"]\n'], _bytes()))
            args = ["--config", str(file)]
        with contextlib.suppress(SettingsError), contextlib.redirect_stderr(io.StringIO()):
            cli.read(cli.Command, "zmu-worker run", args)
    return 1


@functools.cache
def _variables() -> list[str]:
    return [name for name, _ in cli.variables(Settings) if not name.startswith("ZMU_CONFIG")]


def _bytes() -> list[bytes]:
    return [value.encode("utf-8", "surrogateescape") for value in VALUES]


@contextlib.contextmanager
def _environment(given: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("ZMU_")]:
        del os.environ[name]
    os.environ.update({name: value.replace("\0", "") for name, value in given.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@functools.cache
def _version() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        made = factory.publish(Path(folder), **factory.remembering())   # type: ignore[arg-type]
        return {name: made.read("v1", name) for name in (MANIFEST, WEIGHTS, REPORT)}


def models(chance: random.Random) -> int:
    """A version that was tampered with, signed anew or not: it loads with numbers, or is refused by name."""
    files = dict(_version())
    if chance.random() < 0.5:
        files[MANIFEST] = bent(chance, [files[MANIFEST]], [*_bytes(), b"1e999", b"-1", b'"vae"', b"99999999"])
    else:
        files[WEIGHTS] = bent(chance, [files[WEIGHTS]], [b"\xff" * 8, b"\0\0\xc0\x7f", b"F32", b"99999", b"{"])
        if chance.random() < 0.8:
            manifest = json.loads(files[MANIFEST])
            manifest["sha256"] = artifact.sha256_of(files[WEIGHTS])
            files[MANIFEST] = json.dumps(manifest).encode()
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(folder, "default")
        registry.publish("v1", files)
        with contextlib.suppress(ModelError):
            loaded = artifact.load(registry, "v1", CPU)
            assert all(bool(torch.isfinite(t).all()) for t in loaded.model.state_dict().values())
            f = len(loaded.manifest.features)
            x_BLF = torch.zeros(1, loaded.manifest.shape.window, f)
            assert x_BLF.numel()
        alias = Path(folder) / "default" / "aliases" / "champion"
        alias.parent.mkdir()
        alias.write_bytes(bent(chance, [b"v1", b"v1\n"], [b"../v1", b"\0", b"\xff", b"aliases", b"/etc/passwd"]))
        with contextlib.suppress(ModelError):
            assert "/" not in (registry.resolve("champion") or "")
    return 1


def feedback(chance: random.Random) -> int:
    said = Feedback()
    seed = b'{"event_id": "6a0f7c1e-3b1d-5c6e-9a55-0d6a55aa7f10", "label": "false_alarm", "by": "me"}'
    for _ in range(50):
        said.take(bent(chance, [seed]) if chance.random() < 0.95 else None)
    assert set(said.labels.values()) <= set(LABELS)
    assert said.invalid + len(said.labels) > 0
    return 50


def state(chance: random.Random) -> int:
    """A row is as it was written, or known to be damaged; so is the note beside an offset."""
    row = Row("pump-1", chance.randbytes(chance.choice((0, 8, 40))), 7, 5, 6, "01" * 8, "ab" * 8)
    note = Stand(12, 5, 6, 7, "abc").note().encode()
    key, value, [(name, mark)] = pack(row)
    for _ in range(20):
        given = [
            bent(chance, [part or b"\0"], [b"", b"\0" * 4, b"\xff" * 9]) if chance.random() < 0.4 else part
            for part in (key, value, mark)
        ]
        with contextlib.suppress(DamagedRow):
            assert unpack(PlainRecord("g-state", 0, 5, 0, given[0], given[1], [(name, given[2])])) == row
        Stand.read(bent(chance, [note], [b":", b"9" * 40, b"-", b"\xff"]).decode("utf-8", "replace"))
    return 20
