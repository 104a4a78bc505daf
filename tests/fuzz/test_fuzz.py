"""Any input results in a value or in one of our errors, and no error shows a key.

``nox -s fuzz`` tries several hundred thousand further inputs, guided by coverage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, KEY, TARGETS

_PIECES: Final = st.binary(max_size=8) | st.sampled_from(
    [
        *(
            b"\0",
            b"\r",
            b"\n",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"\xed\xa0\x80",
            b"\\ud800",
            b"\\U00110000",
            b"\x1b[2J",
        ),
        *(
            b"{",
            b"[" * 30,
            b'"',
            b"'",
            b":",
            b"- ",
            b"? ",
            b"&a ",
            b"*a",
            b"!",
            b"%YAML ",
            b"---",
            b"|",
            b"#",
        ),
        *(b"NaN", b"1e999", b"9" * 30, b"-1", b"null", b"@", b"://", b"//", b"%00", b",", b";", b"\t"),
        KEY.encode(),
        KEY.replace("/", "\\/").encode(),
    ]
)
_EDITS: Final = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), _PIECES), max_size=6)


def edited(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Return ``seed`` with each piece inserted in place of ``length`` bytes at a relative position."""
    for place, length, piece in edits:
        at = int(place * len(seed))
        seed = seed[:at] + piece + seed[at + length :]
    return seed


def seeds(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


def test_each_target_has_a_corpus() -> None:
    """Each target has a folder in the corpus, and each folder a target."""
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize(
    ("name", "seed"),
    [pytest.param(name, seed, id=f"{name}-{seed.name}") for name in TARGETS for seed in seeds(name)],
)
def test_what_is_known(name: str, seed: Path) -> None:
    """Each input of the corpus, including those that once failed, passes."""
    TARGETS[name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(st.data())
def test_what_is_near_it(name: str, data: st.DataObject) -> None:
    """Edited inputs of the corpus and random bytes pass."""
    near = st.builds(edited, st.sampled_from([path.read_bytes() for path in seeds(name)]), _EDITS)
    TARGETS[name](data.draw(near | st.binary(max_size=100)))
