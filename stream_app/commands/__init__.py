"""`faust -A stream_app …`: one module a command. Importing this package puts them on Faust's command line."""

from stream_app.commands import dead_letters, export, keys, migrate, monitor, positions, replay, reveal, reveals, worker
from stream_app.commands.faust_help import show_our_own
from stream_app.commands.faust_options import shut_out_environment

shut_out_environment()
show_our_own()

__all__ = ["dead_letters", "export", "keys", "migrate", "monitor", "positions", "replay", "reveal", "reveals", "worker"]
