"""The compiled core is built where a Rust toolchain is; elsewhere its twins in Python do the work.

Everything else about the package is in pyproject.toml.
"""

import shutil

from setuptools import setup
from setuptools_rust import Binding, RustExtension

core = RustExtension(
    "worker._core.columns",
    "worker/_core/Cargo.toml",
    args=["--locked"],
    binding=Binding.PyO3,
    debug=False,
    optional=True,
    py_limited_api=True,
)

if shutil.which("cargo"):
    setup(rust_extensions=[core], options={"bdist_wheel": {"py_limited_api": "cp311"}})
else:
    setup()
