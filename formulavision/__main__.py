"""``python -m formulavision``."""

from formulavision.cli import main

main()
