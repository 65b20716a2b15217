"""``python -m captum_interactions`` is the command ``captum-interactions``."""

from captum_interactions.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
