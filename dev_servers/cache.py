"""Where this user's runs share what they may: downloaded jars, and which ports are taken."""

import os
from pathlib import Path

CACHE_VARIABLE = "DEV_SERVERS_CACHE"


def cache_directory() -> Path:
    """``$DEV_SERVERS_CACHE``, else ``login-stream`` in the user's cache directory."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "login-stream"
