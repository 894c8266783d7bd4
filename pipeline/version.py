"""The version of this package: what `pyproject.toml`, `--version`, manifests and headers say."""

__version__ = "0.5.0"
