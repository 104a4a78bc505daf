"""Whatever anybody could have written ends in a value or an error of ours, and no error shows a key.

``nox -s fuzz`` tries some hundred thousand inputs more, guided by what they reach in the code.
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
    """``seed`` with each piece in the place of so many bytes, somewhere between its beginning and its end."""
    for place, length, piece in edits:
        at = int(place * len(seed))
        seed = seed[:at] + piece + seed[at + length :]
    return seed


def seeds(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


def test_each_target_has_a_corpus() -> None:
    """And each folder of the corpus a target."""
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize(
    ("name", "seed"),
    [pytest.param(name, seed, id=f"{name}-{seed.name}") for name in TARGETS for seed in seeds(name)],
)
def test_what_is_known(name: str, seed: Path) -> None:
    """Each input that was ever of interest, those that failed once among them."""
    TARGETS[name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(st.data())
def test_what_is_near_it(name: str, data: st.DataObject) -> None:
    """The same, changed here and there, or bytes of no meaning."""
    near = st.builds(edited, st.sampled_from([path.read_bytes() for path in seeds(name)]), _EDITS)
    TARGETS[name](data.draw(near | st.binary(max_size=100)))
