"""Whole models, trained by us and by what users would pick instead."""
