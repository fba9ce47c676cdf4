"""Has a container's first process keep a SIGTERM that comes before anybody waits for it. Python imports this before all else.

The kernel drops a signal that the first process of a container has no handler for: what says stop in the second that the imports
take would be lost, and the process killed when the supervisor's patience ends. A signal that is blocked is kept: whoever waits for
it (pipeline/stop_signals.py) gets it. A command that nobody stops in order is no worse off: SIGTERM was dropped, and now waits.
"""

import os
import signal

if os.getpid() == 1:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
