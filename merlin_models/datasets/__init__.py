"""Data sets ready for training: train and valid folders of Parquet files with their schema. Nothing is downloaded."""
