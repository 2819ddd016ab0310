"""Finds and loads libconclave."""
from __future__ import annotations

import ctypes
import os
import sys
import sysconfig

from . import _abi

ABI_VERSION = 1
# Below 1.0 every minor version of the library has a name of its own.
NAMES = ("libconclave.so.0.1", "libconclave.so")
VARIABLE = "CONCLAVE_LIBRARY"


def _folders() -> list[str]:
    """Where an installed library may be that the dynamic linker does not search by itself."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    inside = ["lib", "lib64"] + ([os.path.join("lib", multiarch)] if multiarch else [])
    folders = [os.path.dirname(os.path.abspath(__file__))]
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, "/usr/local", "/usr")):
        folders += [os.path.join(prefix, name) for name in inside]
    return folders


def _candidates() -> list[str]:
    """What to try, in order. A bare name is for the dynamic linker (LD_LIBRARY_PATH, ldconfig)."""
    given = os.environ.get(VARIABLE)
    if given:
        return [os.path.join(given, name) for name in NAMES] if os.path.isdir(given) else [given]
    beside, *others = _folders()
    return ([os.path.join(beside, name) for name in NAMES] + list(NAMES)
            + [os.path.join(folder, name) for folder in others for name in NAMES])


def _checked(library: ctypes.CDLL, path: str) -> ctypes.CDLL:
    try:
        version = library.conclave_abi_version
    except AttributeError:
        raise ImportError(f"{path} is not libconclave: it lacks conclave_abi_version") from None
    version.restype, version.argtypes = ctypes.c_uint32, []
    if version() != ABI_VERSION:
        raise ImportError(f"{path} has version {version()} of the C interface; this package is "
                          f"for version {ABI_VERSION}: install the two from the same release")
    _abi.declare(library)
    return library


def load() -> ctypes.CDLL:
    """The library, its functions declared. ImportError says what was tried and what to do."""
    refused = []
    for candidate in _candidates():
        if os.path.dirname(candidate) and not os.path.exists(candidate):
            refused.append(f"{candidate}: no such file")
            continue
        try:
            library = ctypes.CDLL(candidate)
        except OSError as error:
            refused.append(str(error))
            continue
        return _checked(library, candidate)
    if not os.environ.get(VARIABLE):  # where nothing is, nothing need be said
        refused = [line for line in refused if not line.endswith("no such file")]
    raise ImportError(
        "libconclave.so was not found: install Conclave (cmake --install), or set "
        f"{VARIABLE} to the library's file. " + "; ".join(refused))


library = load()
version: str = library.conclave_version().decode()
