"""Where a library reads: its errors, and its warnings of what it guessed or left out, are refusals
that name the place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from campaign.errors import InputError


@contextmanager
def library(where: str) -> Iterator[None]:
    """Around a library's reading. Raises InputError in place of whatever it raises, and of each
    UserWarning.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", UserWarning)
            yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{where}: cannot be read: {reason[:300]}",
            hint="is the file whole, and of the format that its name says?",
        ) from error
