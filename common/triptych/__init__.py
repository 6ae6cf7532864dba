"""One architecture, three frameworks, proof that they agree."""

__version__ = "0.1.0"
