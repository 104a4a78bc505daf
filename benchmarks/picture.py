"""The CPU of the contenders as a picture: SVG, drawn as text. Measures nothing."""

from __future__ import annotations

from typing import Final
from xml.sax.saxutils import escape

from benchmarks.measure import Cost
from benchmarks.report import NAMES

_WIDTH: Final = 720
_LEFT: Final = 206
_RIGHT: Final = 170
_TOP: Final = 76
_ROW: Final = 38
_BAR: Final = 24
# The panel has its own background, so it can be read on a light page and on a dark one.
_STYLE: Final = """
    .panel { fill: #ffffff; stroke: #d0d7de; }
    text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
    .title { font-size: 17px; font-weight: 600; }
    .quiet { fill: #59636e; }
    .other { fill: #8c959f; }
    .ours { fill: #6f42c1; }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #151b23; stroke: #3d444d; }
      text { fill: #f0f6fc; }
      .quiet { fill: #9198a1; }
      .other { fill: #656c76; }
      .ours { fill: #a371f7; }
    }"""


def picture(costs: dict[str, Cost]) -> str:
    """Horizontal bars: microseconds of CPU for each link, and the ratio to bare aiohttp."""
    height = _TOP + _ROW * len(costs) + 16
    longest = max(cost.cpu for cost in costs.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    bars = "\n".join(
        _bar(name, cost.cpu, cost.cpu / costs["bare"].cpu, _TOP + _ROW * place, scale)
        for place, (name, cost) in enumerate(costs.items())
    )
    told = "; ".join(f"{_plain(name)}: {cost.cpu:.0f} µs" for name, cost in costs.items())
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" \
aria-labelledby="title told">
  <title id="title">CPU time per link in microseconds</title>
  <desc id="told">{escape(told)}</desc>
  <style>{_STYLE}
  </style>
  <rect class="panel" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>
  <text class="title" x="20" y="32">CPU time of the client per link</text>
  <text class="quiet" x="20" y="54">microseconds, 100 requests at once; shorter is better</text>
{bars}
</svg>
"""


def _bar(name: str, cpu: float, ratio: float, y: float, scale: float) -> str:
    kind = "ours" if name.startswith("sdk") else "other"
    length = cpu * scale
    middle = y + _BAR / 2 + 5
    return f"""\
  <text x="{_LEFT - 12}" y="{middle:g}" text-anchor="end">{escape(_plain(name))}</text>
  <rect class="{kind}" x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="3"/>
  <text x="{_LEFT + length + 10:.1f}" y="{middle:g}">{cpu:.0f} µs\
<tspan class="quiet" dx="8">{ratio:.2f} of bare</tspan></text>"""


def _plain(name: str) -> str:
    return NAMES[name].replace("`", "")
