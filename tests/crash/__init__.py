"""The fault suite: everything is broken on purpose under load, and a checker counts what came of it. See ``faults/__init__.py``."""
