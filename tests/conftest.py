"""What every test relies on."""

from __future__ import annotations

import signal

# A shell that is no terminal starts what stands before an "&" with Ctrl-C ignored, and programs inherit it;
# tests that interrupt a program would then wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
