"""Batches of tensors from Parquet files; import `merlin_models.loader.tensorflow` for the Keras loader."""
