"""The installed version, as the build recorded it."""

from __future__ import annotations

try:
    from merlin_models._build_info import VERSION as __version__
except ImportError as cause:
    raise ImportError(
        "merlin_models is not built: its compiled part is missing. Install it with `pip install .` in the repository "
        "(or `make build`), and import it from outside of the source folder."
    ) from cause
