"""Deep recommender models in TensorFlow and Keras 3, on CUDA and CPU kernels of their own.

``import merlin_models.tf as ml`` gives the blocks, layers, tasks and models; ``merlin_models.schema`` the schema that they
are built from; ``merlin_models.loader.tensorflow`` the Parquet loader. Importing this package alone is cheap: it loads
neither TensorFlow nor the compiled kernels.
"""

from __future__ import annotations

from merlin_models._native import show_build
from merlin_models._version import __version__

__all__ = ["__version__", "show_build"]
