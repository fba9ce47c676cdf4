"""`faust -A stream_app …`: one module a command. Importing this package puts them on Faust's command line."""

from stream_app.commands import dead_letters, keys, migrate, monitor, positions, reveal, worker

__all__ = ["dead_letters", "keys", "migrate", "monitor", "positions", "reveal", "worker"]
