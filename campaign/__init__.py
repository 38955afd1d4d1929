"""oreloop: active-learning campaigns for materials discovery."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from campaign.api import Campaign

try:
    __version__ = version("oreloop")
except PackageNotFoundError:
    __version__ = "0.0.0"

__all__ = ["Campaign", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Campaign":
        from campaign.api import Campaign

        return Campaign
    raise AttributeError(f"module 'campaign' has no attribute {name!r}")
