"""Loaders of Parquet files: ``bench_loader``, and the libraries that ours is compared with."""
