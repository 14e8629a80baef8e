"""The process that follows a run: `python -m rmft.tracking RUN`, told of new lines on its standard input."""

from __future__ import annotations

import signal
import sys
from contextlib import closing
from pathlib import Path

from rmft.errors import RmftError
from rmft.tracking.send import Sender, settings_of


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run ends first, and then closes the input
    run = Path(sys.argv[1])
    try:
        with closing(Sender(run, settings_of(run))) as sender:
            sender.send()
            for _ in sys.stdin:
                sender.send()
    except RmftError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
