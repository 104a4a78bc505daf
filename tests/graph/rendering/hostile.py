"""A text that would break every format if it were not escaped."""

from __future__ import annotations

HOSTILE = (
    "</script><script>alert(1)</script>\"'&]}>\\n--!> \n\x00\x1b[31m \u202e"
    "#quot; `x` ${y} __DATA__ %%{ \U0001f9e8 \ud800"
)
