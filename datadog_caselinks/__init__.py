"""Links Datadog cases, incidents and pages: an async client with safe retries."""

from importlib import import_module
from typing import TYPE_CHECKING

from datadog_caselinks.version import __version__ as __version__

if TYPE_CHECKING:
    from datadog_caselinks.public import *
else:  # imported when the first public name is used, so that the command starts without aiohttp

    def __getattr__(name: str) -> object:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        public = vars(import_module(f"{__name__}.public"))
        if name == "__all__":
            return sorted(each for each in public if each[0].isalpha())
        if name.startswith("_") or name not in public:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return public[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
