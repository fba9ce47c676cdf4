"""What is collected here."""

import os

# `make alertmanager` wants one on the PATH: no package index has it, and Debian's looks for its files where it is installed.
collect_ignore = [] if "ALERTMANAGER" in os.environ else ["test_alertmanager.py"]
